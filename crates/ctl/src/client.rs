//! One blocking connection to PID 1's private socket.

use muster_bus::{Incoming, Kind, Outgoing, OwnedObjectPath, OwnedVariant, Peer, Type};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const ADDRESS: &str = "/run/systemd/private";
const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// PID 1 answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(25);

/// How many questions PID 1 gets ahead of its answers.
const WINDOW: usize = 64;

/// Why a command could not do its work, for people.
#[derive(Debug)]
pub struct Failure {
    /// What is said.
    pub text: String,
    /// The exit status (`muster_cli::STATUSES`).
    pub status: u8,
}

impl Failure {
    /// PID 1 said no, or something is wrong with what was asked.
    pub fn refused(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), status: 1 }
    }

    /// PID 1 could not be asked.
    fn unreachable(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), status: 3 }
    }

    /// The answer could not be written; that nobody reads on (a pipe) is no failure.
    pub fn output(error: std::io::Error) -> Failure {
        let over = error.kind() == std::io::ErrorKind::BrokenPipe;
        Failure { text: error.to_string(), status: u8::from(!over) }
    }

    fn broken(error: impl std::fmt::Display) -> Failure {
        Failure::unreachable(format!("the connection to PID 1 broke: {error}"))
    }
}

/// What is asked for: the property of an interface of an object.
pub struct Question<'a>(pub &'a str, pub &'a str, pub &'a str);

/// Answers in the order of their questions.
pub struct Answers(std::vec::IntoIter<Option<OwnedVariant>>);

impl Answers {
    /// The next one; nothing where there is none, as when the unit is gone meanwhile.
    pub fn take<T: TryFrom<OwnedVariant>>(&mut self) -> Option<T> {
        T::try_from(self.0.next()??).ok()
    }
}

/// A loaded unit.
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `ActiveState`.
    pub active: String,
    /// Its object.
    pub path: String,
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
            Failure::unreachable(format!("{ADDRESS}: {error}; is muster PID 1 here, and are you root?"))
        })?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::broken)?;
        Ok(Client { stream, peer: Peer::client(0) })
    }

    /// The object of a unit, which is loaded if it is not.
    pub fn load_unit(&mut self, unit: &str) -> Result<String, Failure> {
        let call = Outgoing::method_call(DESTINATION, MANAGER_PATH, MANAGER, "LoadUnit");
        let path: OwnedObjectPath = self.call(&call.body("s", |body| body.write_str(unit)))?;
        Ok(path.as_str().to_owned())
    }

    /// The loaded units that match.
    pub fn list(&mut self, pattern: &str) -> Result<Vec<Listed>, Failure> {
        type Row =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let call = Outgoing::method_call(DESTINATION, MANAGER_PATH, MANAGER, "ListUnitsByPatterns");
        let rows: Vec<Row> = self.call(&call.body("asas", |body| {
            body.write_strs::<&str>([]);
            body.write_strs([pattern]);
        }))?;
        let listed = |row: Row| Listed { name: row.0, active: row.3, path: row.6.as_str().to_owned() };
        Ok(rows.into_iter().map(listed).collect())
    }

    /// A unit by any of its names, loaded if it is not.
    pub fn look_up(&mut self, name: &str) -> Result<Listed, Failure> {
        let path = self.load_unit(name)?;
        let active = self.get(&path, crate::UNIT, "ActiveState")?;
        Ok(Listed { name: name.to_owned(), active, path })
    }

    /// The unit that a machine or container boots to.
    pub fn default_target(&mut self) -> Result<String, Failure> {
        self.call(&Outgoing::method_call(DESTINATION, MANAGER_PATH, MANAGER, "GetDefaultTarget"))
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
        let value: OwnedVariant = self.call(&question(&Question(path, interface, name)))?;
        T::try_from(value)
            .map_err(|_| Failure::refused(format!("{interface}.{name} is of another type than expected")))
    }

    /// A property of the manager.
    pub fn manager<T: TryFrom<OwnedVariant>>(&mut self, name: &str) -> Result<T, Failure> {
        self.get(MANAGER_PATH, MANAGER, name)
    }

    /// Many properties at once.
    pub fn ask(&mut self, questions: &[Question<'_>]) -> Result<Answers, Failure> {
        let mut answers: Vec<Option<OwnedVariant>> = questions.iter().map(|_| None).collect();
        let mut waiting = BTreeMap::new();
        let mut rest = questions.iter().enumerate();
        loop {
            while waiting.len() < WINDOW
                && let Some((index, next)) = rest.next()
            {
                waiting.insert(self.peer.send(&question(next)).map_err(Failure::broken)?, index);
            }
            if waiting.is_empty() {
                break;
            }
            let message = self.next()?;
            let index = message.reply_serial().and_then(|serial| waiting.remove(&serial));
            if let Some(answer) = index.and_then(|index| answers.get_mut(index)) {
                *answer = message.body().ok().filter(|_| message.kind() != Kind::Error);
            }
        }
        Ok(Answers(answers.into_iter()))
    }

    fn call<T: DeserializeOwned + Type>(&mut self, call: &Outgoing) -> Result<T, Failure> {
        let serial = self.peer.send(call).map_err(Failure::broken)?;
        loop {
            let message = self.next()?;
            if message.reply_serial() == Some(serial) {
                return answer(&message);
            }
        }
    }

    /// The next message; what waits to be sent is sent before.
    fn next(&mut self) -> Result<Incoming, Failure> {
        loop {
            while self.peer.wants_write() {
                let count = self.stream.write(self.peer.output().0).map_err(Failure::broken)?;
                self.peer.sent(count);
            }
            if let Some(message) = self.peer.next_message() {
                return Ok(message);
            }
            let mut buffer = [0; 65536];
            let count = self.stream.read(&mut buffer).map_err(Failure::broken)?;
            if count == 0 {
                return Err(Failure::broken("closed"));
            }
            self.peer.receive(buffer.get(..count).unwrap_or(&[]), Vec::new()).map_err(Failure::broken)?;
        }
    }
}

fn question(Question(path, interface, name): &Question<'_>) -> Outgoing {
    let call = Outgoing::method_call(DESTINATION, path, "org.freedesktop.DBus.Properties", "Get");
    call.body("ss", |body| {
        body.write_str(interface);
        body.write_str(name);
    })
}

fn answer<T: DeserializeOwned + Type>(message: &Incoming) -> Result<T, Failure> {
    if message.kind() == Kind::Error {
        return Err(Failure::refused(message.body::<String>().unwrap_or_else(|_| "refused".to_owned())));
    }
    message.body().map_err(|error| Failure::refused(format!("the answer was not understood: {error}")))
}
