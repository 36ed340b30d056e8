//! Printing for people and for programs; a reader that has gone away is no error.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::CliError;

/// Output of a command.
#[derive(Debug)]
pub(crate) struct Output {
    colour: bool,
}

impl Output {
    /// Returns the process's standard output; colour only on a terminal that wants it.
    pub(crate) fn standard() -> Output {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output {
            colour: wanted && io::stdout().is_terminal(),
        }
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        ignore_broken_pipe(io::stdout().lock().write_all(text.as_bytes()))
    }

    /// Prints a line.
    pub(crate) fn line(&self, line: &str) -> Result<(), CliError> {
        self.text(&format!("{line}\n"))
    }

    /// Prints indented JSON.
    pub(crate) fn json(&self, value: &serde_json::Value) -> Result<(), CliError> {
        self.line(&format!("{value:#}"))
    }

    /// Returns true if escape sequences may be printed.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }
}

fn ignore_broken_pipe(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(CliError::failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Prints a line to standard error.
pub(crate) fn complain(line: &str) {
    // Nobody can be told that telling failed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints completions for a shell.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLE:
  weft completions bash > /etc/bash_completion.d/weft")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

impl CompletionArgs {
    pub(crate) fn run(&self, out: &Output, mut command: Command) -> Result<(), CliError> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "weft", &mut text);
        out.text(&String::from_utf8_lossy(&text))
    }
}

/// Writes the man pages, one for each command.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLE:
  weft man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder to write to; without it, prints weft(1)
    folder: Option<PathBuf>,
}

impl ManArgs {
    pub(crate) fn run(&self, out: &Output, command: Command) -> Result<(), CliError> {
        let Some(folder) = &self.folder else {
            let mut text = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut text)
                .map_err(CliError::failed)?;
            return out.text(&String::from_utf8_lossy(&text));
        };
        let failed = |error| CliError::failed(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        clap_mangen::generate_to(command, folder).map_err(failed)
    }
}
