//! What a mesh costs, read from the kernel: what its routers use and what its hosts send.

use std::fs;

use kernel::netns::Namespace;
use testbed::rig::TrialError;

/// What a mesh has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Processor time of all routers, nanoseconds.
    pub cpu_ns: u64,
    /// How often their threads gave up or lost the processor.
    pub switches: u64,
    /// What the hosts sent through the ports of the switch, with all headers.
    pub bytes: u64,
    /// The same in packets; what a device cuts later counts as one.
    pub packets: u64,
}

impl Used {
    /// Reads what these processes have used and what entered the ports of this switch.
    pub fn read(routers: &[u32], switch: &Namespace) -> Result<Used, TrialError> {
        let mut used = Used::default();
        for router in routers {
            for task in fs::read_dir(format!("/proc/{router}/task"))? {
                let task = task?.path();
                // A thread that ended meanwhile counts no longer.
                let file = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
                let time = file("schedstat");
                used.cpu_ns += first_number(&time);
                for line in file("status").lines() {
                    if let Some((_, count)) = line.split_once("voluntary_ctxt_switches:") {
                        used.switches += first_number(count);
                    }
                }
            }
        }
        let devices = switch.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        for (bytes, packets) in devices.lines().filter_map(received_by_port) {
            used.bytes += bytes;
            used.packets += packets;
        }
        Ok(used)
    }

    /// Returns what was used since an earlier time.
    #[must_use]
    pub fn since(&self, before: &Used) -> Used {
        Used {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            switches: self.switches.saturating_sub(before.switches),
            bytes: self.bytes.saturating_sub(before.bytes),
            packets: self.packets.saturating_sub(before.packets),
        }
    }
}

/// Bytes and packets that a port received, if the line is that of a port.
fn received_by_port(line: &str) -> Option<(u64, u64)> {
    let (name, fields) = line.split_once(':')?;
    if !name.trim().starts_with("port") {
        return None;
    }
    let mut fields = fields.split_whitespace().map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ports_receive_counts() {
        let header = " face |bytes    packets errs drop fifo frame compressed multicast|bytes";
        assert_eq!(received_by_port(header), None);
        let port = " port12: 1700 20 0 0 0 0 0 0 999 9 0 0 0 0 0 0";
        assert_eq!(received_by_port(port), Some((1700, 20)));
        assert_eq!(received_by_port("  switch: 17 2 0 0"), None);
    }

    #[test]
    fn what_is_no_number_counts_as_nothing() {
        assert_eq!(first_number("\t17 kB"), 17);
        assert_eq!(first_number(""), 0);
    }
}
