//! Programs that run while something is measured.

use std::process::{Child, ChildStdout, Command};

use kernel::netlink::Netlink;
use kernel::netns::Namespace;
use testbed::rig::{TrialError, wait_until};

/// A program in a namespace, ended when dropped.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it.
    pub fn start(namespace: &Namespace, command: &mut Command) -> Result<Daemon, TrialError> {
        Ok(Daemon(namespace.spawn(command)?))
    }

    /// Returns the number of its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns what it prints, if that was to be piped; once.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Returns an error if it has ended.
    pub fn check(&mut self) -> Result<(), TrialError> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("a program to compare with ended: {status}").into()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the device that a program makes.
pub fn wait_for_link(netlink: &Netlink, name: &str) -> Result<(), TrialError> {
    match wait_until(|| matches!(netlink.link(name), Ok(Some(_)))) {
        true => Ok(()),
        false => Err(format!("no device {name} was made").into()),
    }
}
