//! A prompt into the small image, which has no shell: each line is a program of the image and its arguments.

use anyhow::Result;
use muster_tests::{Container, image};
use std::io::{BufRead, Write};

const HELP: &str = "ask [ADDRESS]    asks the demo (127.0.0.1:7007, 127.0.0.1:7008, /run/demo.sock)
musterctl ...    controls muster
exit             ends the container";

/// Reads lines until `exit` or the end of input.
pub fn small(container: &Container) -> Result<()> {
    println!("{HELP}");
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("muster> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next().transpose()? else { return Ok(()) };
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["exit" | "quit"] => return Ok(()),
            ["help"] => println!("{HELP}"),
            ["ask"] => show(container, &[image::DEMO, "ask", "127.0.0.1:7007"])?,
            ["ask", address] => show(container, &[image::DEMO, "ask", address])?,
            command => show(container, command)?,
        }
    }
}

fn show(container: &Container, command: &[&str]) -> Result<()> {
    let code = container.interact(command)?;
    if code != 0 {
        println!("exit status {code}");
    }
    Ok(())
}
