//! `musterctl sockets`: every listening address, what waits there, and what it starts.

use crate::client::{Answers, Client, Failure, Question};
use crate::page::{Page, Style};
use crate::{Answer, OUR_SOCKET, UNIT};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

const SOCKET: &str = "org.freedesktop.systemd1.Socket";

/// One listening address.
#[derive(Serialize)]
struct Listening {
    address: String,
    /// Connections or bytes that wait in the kernel; nothing where it does not say.
    waiting: Option<u64>,
    accepted: u32,
    refused: u32,
    failed: u64,
    open: u32,
    pauses: u64,
    unit: String,
    /// The units that it starts; none with `Accept=yes`, which starts an instance for each connection.
    starts: Vec<String>,
    accept: bool,
    /// Options of the descriptor, as the kernel has them.
    options: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(transparent)]
pub struct Sockets(Vec<Listening>);

/// What is asked of each socket unit.
const QUESTIONS: [(&str, &str); 9] = [
    (OUR_SOCKET, "Queues"),
    (OUR_SOCKET, "Options"),
    (SOCKET, "NAccepted"),
    (SOCKET, "NRefused"),
    (SOCKET, "NConnections"),
    (OUR_SOCKET, "Failures"),
    (OUR_SOCKET, "Pauses"),
    (SOCKET, "Accept"),
    (UNIT, "Triggers"),
];

/// Asks.
pub fn sockets() -> Result<Sockets, Failure> {
    let mut client = Client::connect()?;
    let units = client.list("*.socket")?;
    let of = |path| QUESTIONS.map(|(interface, name)| Question(path, interface, name));
    let questions: Vec<Question<'_>> = units.iter().flat_map(|unit| of(&unit.path)).collect();
    let mut answers = client.ask(&questions)?;
    Ok(Sockets(units.iter().flat_map(|unit| listening(&unit.name, &mut answers)).collect()))
}

/// An address, and its options by name.
type Options = (String, Vec<(String, String)>);

/// The addresses of a unit, from the answers to [`QUESTIONS`]; none where it is gone meanwhile.
fn listening(unit: &str, answers: &mut Answers) -> Vec<Listening> {
    let queues: Vec<(String, u64)> = answers.take().unwrap_or_default();
    let options: Vec<Options> = answers.take().unwrap_or_default();
    let [accepted, refused, open] = [(); 3].map(|()| answers.take::<u32>().unwrap_or_default());
    let [failed, pauses] = [(); 2].map(|()| answers.take::<u64>().unwrap_or_default());
    let accept = answers.take().unwrap_or_default();
    let triggers: Vec<String> = answers.take().unwrap_or_default();
    let starts = if accept { Vec::new() } else { triggers };
    let each = |((address, waiting), (_, options)): ((String, u64), Options)| Listening {
        address,
        waiting: (waiting != u64::MAX).then_some(waiting),
        accepted,
        refused,
        failed,
        open,
        pauses,
        unit: unit.to_owned(),
        starts: starts.clone(),
        accept,
        options: options.into_iter().collect(),
    };
    queues.into_iter().zip(options).map(each).collect()
}

impl Answer for Sockets {
    fn print(&self, page: &mut Page<'_>) -> io::Result<()> {
        let heads = format!(
            "{:<40} {:>8} {:>9} {:>8} {:>7} {:>7} {:>7}  {:<30} STARTS",
            "ADDRESS", "WAITING", "ACCEPTED", "REFUSED", "FAILED", "OPEN", "PAUSES", "UNIT"
        );
        writeln!(page, "{}", page.paint(Style::Bold, &heads))?;
        for one in &self.0 {
            let waiting = one.waiting.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let starts = if one.accept { "an instance each".to_owned() } else { one.starts.join(" ") };
            let Listening { address, accepted, refused, failed, open, pauses, unit, .. } = one;
            writeln!(
                page,
                "{address:<40} {waiting:>8} {accepted:>9} {refused:>8} {failed:>7} {open:>7} {pauses:>7}  {unit:<30} {starts}"
            )?;
            let options: Vec<String> =
                one.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if !options.is_empty() {
                writeln!(page, "    {}", page.paint(Style::Dim, &options.join(" ")))?;
            }
        }
        Ok(())
    }
}
