//! Address plugins of others: another program, run as the runtime would.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::error::{CniError, Code};
use crate::invocation::Call;
use host::blocking::blocking;

/// Maximum time for another plugin.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes; a longer one is an error.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Runs the plugin of this name with our own environment and configuration. Returns what it
/// answered.
pub(super) async fn run(name: &str, call: &Call, text: &str) -> Result<Option<Value>, CniError> {
    run_as(call.command.name(), name, call, text).await
}

/// As [`run`], with another command than the one that we were called with.
pub(super) async fn run_as(
    command: &str,
    name: &str,
    call: &Call,
    text: &str,
) -> Result<Option<Value>, CniError> {
    let program = find(name, call)?;
    let variables = [("CNI_COMMAND", command)];
    exchange(&program, text, &variables).await
}

fn find(name: &str, call: &Call) -> Result<PathBuf, CniError> {
    let places = call.path.iter().map(|folder| folder.join(name));
    let found = places.into_iter().find(|program| program.is_file());
    found.ok_or_else(|| {
        let folders: Vec<String> = call.path.iter().map(|p| p.display().to_string()).collect();
        CniError::new(
            Code::Config,
            format!(
                "failed to find plugin {name:?} in path [{}]",
                folders.join(" ")
            ),
            "ipam.type names it",
        )
    })
}

/// Runs a plugin with variables of the environment beside our own.
pub(super) async fn exchange(
    program: &Path,
    text: &str,
    variables: &[(&str, &str)],
) -> Result<Option<Value>, CniError> {
    let name = program.display().to_string();
    let failed = |error: String| CniError::new(Code::Io, format!("plugin {name}"), error);
    let child = process::Command::new(program)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let pid = Pid::from_child(&child);
    let text = text.to_owned();
    let ended = blocking(move || wait_for(child, &text));
    let Ok(ended) = tokio::time::timeout(TIME_MAX, ended).await else {
        // It may end by itself just now.
        let _ = kill_process(pid, Signal::KILL);
        let seconds = TIME_MAX.as_secs();
        let msg = format!("plugin {name} did not answer within {seconds} s");
        return Err(CniError::new(Code::TryAgain, msg, ""));
    };
    let (status, answer) = ended.map_err(failed)?;
    let value: Option<Value> = match answer.trim() {
        "" => None,
        text => serde_json::from_str(text).ok(),
    };
    if status.success() {
        return Ok(value);
    }
    let value = value.unwrap_or_default();
    let code = value["code"]
        .as_u64()
        .and_then(|code| u32::try_from(code).ok());
    let msg = value["msg"].as_str();
    let msg = msg.map_or_else(|| status.to_string(), str::to_owned);
    Err(CniError::foreign(
        code.unwrap_or(Code::Failed as u32),
        format!("plugin {name}: {msg}"),
        value["details"].as_str().unwrap_or_default(),
    ))
}

/// Hands a child its input and reads what it answers, until it ends.
fn wait_for(mut child: process::Child, text: &str) -> io::Result<(process::ExitStatus, String)> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its configuration says in its answer what is wrong.
        let _ = input.write_all(text.as_bytes());
    }
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    }
    Ok((child.wait()?, answer))
}
