//! One blocking connection to PID 1's private socket.

use muster_bus::{Incoming, Kind, Outgoing, OwnedObjectPath, OwnedVariant, Peer, Type};
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const ADDRESS: &str = "/run/systemd/private";
const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// PID 1 answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why a command could not do its work, for people.
#[derive(Debug)]
pub struct Failure(pub String);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure(error.to_string())
    }
}

/// The connection.
pub struct Client {
    stream: UnixStream,
    peer: Peer,
}

impl Client {
    /// Connects; only root is let in.
    pub fn connect() -> Result<Client, Failure> {
        let stream = UnixStream::connect(ADDRESS).map_err(|error| {
            Failure(format!("{ADDRESS}: {error}; is muster PID 1 here, and are you root?"))
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, peer: Peer::client(0) })
    }

    /// The object of a unit, which is loaded if it is not.
    pub fn load_unit(&mut self, unit: &str) -> Result<String, Failure> {
        let call = Outgoing::method_call(DESTINATION, MANAGER_PATH, MANAGER, "LoadUnit");
        let path: OwnedObjectPath = self.call(&call.body("s", |body| body.write_str(unit)))?;
        Ok(path.as_str().to_owned())
    }

    /// The names of loaded units that match.
    pub fn units_of(&mut self, pattern: &str) -> Result<Vec<String>, Failure> {
        type Row =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let call = Outgoing::method_call(DESTINATION, MANAGER_PATH, MANAGER, "ListUnitsByPatterns");
        let rows: Vec<Row> = self.call(&call.body("asas", |body| {
            body.write_strs::<&str>([]);
            body.write_strs([pattern]);
        }))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// What a job of a unit would bring.
    pub fn plan(&mut self, path: &str, kind: &str, mode: &str) -> Result<crate::plan::Told, Failure> {
        let call = Outgoing::method_call(DESTINATION, path, crate::OUR_UNIT, "Plan");
        self.call(&call.body("ss", |body| {
            body.write_str(kind);
            body.write_str(mode);
        }))
    }

    /// A property.
    pub fn get<T: TryFrom<OwnedVariant>>(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<T, Failure> {
        let call = Outgoing::method_call(DESTINATION, path, "org.freedesktop.DBus.Properties", "Get");
        let value: OwnedVariant = self.call(&call.body("ss", |body| {
            body.write_str(interface);
            body.write_str(name);
        }))?;
        T::try_from(value)
            .map_err(|_| Failure(format!("{interface}.{name} is of another type than expected")))
    }

    fn call<T: DeserializeOwned + Type>(&mut self, call: &Outgoing) -> Result<T, Failure> {
        let broken =
            |error: &dyn std::fmt::Display| Failure(format!("the connection to PID 1 broke: {error}"));
        let serial = self.peer.send(call).map_err(|error| broken(&error))?;
        loop {
            self.write()?;
            while let Some(message) = self.peer.next_message() {
                if message.reply_serial() == Some(serial) {
                    return answer(&message);
                }
            }
            let mut buffer = [0; 65536];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(broken(&"closed"));
            }
            let bytes = buffer.get(..count).unwrap_or(&[]);
            self.peer.receive(bytes, Vec::new()).map_err(|error| broken(&error))?;
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        while self.peer.wants_write() {
            let count = self.stream.write(self.peer.output().0)?;
            self.peer.sent(count);
        }
        Ok(())
    }
}

fn answer<T: DeserializeOwned + Type>(message: &Incoming) -> Result<T, Failure> {
    if message.kind() == Kind::Error {
        return Err(Failure(message.body::<String>().unwrap_or_else(|_| "refused".to_owned())));
    }
    message.body().map_err(|error| Failure(format!("the answer was not understood: {error}")))
}
