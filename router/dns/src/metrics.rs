//! Counters of the DNS server, for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters that all tasks of the server share.
        #[derive(Debug, Default)]
        pub struct DnsMetrics {
            $(pub(super) $name: Counter,)*
        }

        /// Values of the counters at one time.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct DnsCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl DnsMetrics {
            /// Reads all counters.
            pub fn read(&self) -> DnsCounts {
                DnsCounts {
                    $($name: self.$name.0.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Packets received over UDP.
    queries_udp,
    /// Messages received over TCP.
    queries_tcp,
    /// Queries answered from the names with NOERROR.
    answered,
    /// Queries answered from the names with NXDOMAIN.
    name_errors,
    /// Queries that were malformed, of an unknown kind, or not to be answered by anybody.
    refused,
    /// Packets that got no response: no queries.
    ignored,
    /// Queries passed on to the host's servers.
    forwarded,
    /// Queries not passed on because too many were on their way. Answered with SERVFAIL.
    forward_rejected,
    /// Forwarded queries that no server answered in time. Answered with SERVFAIL.
    forward_failed,
    /// Packets from servers that were no answer to the question.
    upstream_mismatched,
    /// Servers that did not answer a query.
    upstream_failed,
    /// Queries asked again over TCP because the answer was truncated.
    upstream_tcp,
    /// Responses that could not be sent.
    send_failed,
    /// TCP connections closed at once because there were too many.
    connections_rejected,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn inc(&self) {
        self.add(1);
    }
}
