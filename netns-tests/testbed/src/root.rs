//! What tests that need the kernel's help have in common.

use kernel::netns::Namespace;

/// Returns true if tests may make namespaces. If not, notes that this one did not run.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        crate::skips::skip(test, "root");
    }
    root
}

/// Returns from the test unless it runs as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        if !$crate::root::is_root(&name) {
            return;
        }
    };
}
pub use needs_root;

/// Does `work` in a namespace of its own, which ends with it; the loopback device is up.
pub fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let namespace = Namespace::new().unwrap();
    namespace.loopback_up().unwrap();
    namespace.run(work).unwrap()
}

/// Returns the rules of the calling thread's namespace as the `nft` tool prints them, without
/// counts. None, loudly, where it is not installed.
pub fn nft_ruleset(test: &str) -> Option<String> {
    let mut command = std::process::Command::new("nft");
    match command.args(["-s", "list", "ruleset"]).output() {
        Ok(output) => String::from_utf8(output.stdout).ok(),
        Err(error) => {
            crate::skips::skip(test, &format!("the program nft ({error})"));
            None
        }
    }
}
