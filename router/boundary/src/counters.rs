//! Counters of the data threads. Each thread has its own counters and is the only one to write
//! them, so counting takes no locked instruction; readers sum over the threads.
//!
//! Frames are those of the wire: a super-frame counts as the segments it stands for. All threads
//! together satisfy, whenever nothing is on the way inside them,
//!
//! ```text
//! captured + received + made = injected + sent + specials + all drops
//! ```
//!
//! where `made` counts copies for further neighbours, further fragments, and answers.

use std::fmt;

use proto::native;
use proto::sleeve::{self, OpenError};
use proto::switch::SwitchDrop;

/// A counter other than those of drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Frames read from the TAP device.
    Captured,
    /// Bytes of these.
    CapturedBytes,
    /// Frames written to the TAP device.
    Injected,
    /// Bytes of these.
    InjectedBytes,
    /// Frames in packets that came from neighbours.
    Received,
    /// Bytes of these packets, without IP and UDP headers.
    ReceivedBytes,
    /// Frames in packets that went to neighbours.
    Sent,
    /// Bytes of these packets, without IP and UDP headers.
    SentBytes,
    /// Frames that were made here: copies, fragments, answers.
    Made,
    /// Frames between routers that were handed to control.
    Specials,
    /// Reports of native links that were handed to control. They are no frames.
    Reports,
    /// Packets that came from neighbours and were opened.
    PacketsReceived,
    /// Packets that went to neighbours.
    PacketsSent,
    /// Packets that exceeded the path MTU and were sent so that the kernel may fragment them.
    PacketsFragmented,
    /// Reads from the TAP device that gave a frame.
    TapReads,
    /// Writes to the TAP device that took a frame.
    TapWrites,
    /// Batches received from the socket.
    ReceiveBatches,
    /// Batches given to the sockets.
    SendBatches,
    /// Addresses that were seen at another peer than before.
    Moves,
    /// Addresses that were not learned for want of room.
    NotLearned,
    /// Events that control was too busy to take.
    EventsLost,
}

/// Number of counters.
pub const COUNTS: usize = Count::EventsLost as usize + 1;

impl Count {
    /// All counters, with short names for labels.
    pub const ALL: &[(Count, &str)] = &[
        (Count::Captured, "captured"),
        (Count::CapturedBytes, "captured_bytes"),
        (Count::Injected, "injected"),
        (Count::InjectedBytes, "injected_bytes"),
        (Count::Received, "received"),
        (Count::ReceivedBytes, "received_bytes"),
        (Count::Sent, "sent"),
        (Count::SentBytes, "sent_bytes"),
        (Count::Made, "made"),
        (Count::Specials, "specials"),
        (Count::Reports, "reports"),
        (Count::PacketsReceived, "packets_received"),
        (Count::PacketsSent, "packets_sent"),
        (Count::PacketsFragmented, "packets_fragmented"),
        (Count::TapReads, "tap_reads"),
        (Count::TapWrites, "tap_writes"),
        (Count::ReceiveBatches, "receive_batches"),
        (Count::SendBatches, "send_batches"),
        (Count::Moves, "moves"),
        (Count::NotLearned, "not_learned"),
        (Count::EventsLost, "events_lost"),
    ];
}

macro_rules! drop_reasons {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )*) => {
        /// Why a frame was dropped, or a packet of which it is not known how many frames it holds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason { $( $(#[$doc])* $name, )* }

        impl DropReason {
            /// All reasons.
            pub const ALL: &[DropReason] = &[ $( DropReason::$name, )* ];

            /// Returns a short name for labels.
            pub const fn as_str(self) -> &'static str {
                match self { $( DropReason::$name => $text, )* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    Short = "short",
    /// The TAP device announced an offload that does not fit the frame.
    BadOffload = "bad_offload",
    /// The destination is local: the bridge has delivered it.
    Local = "local",
    /// A header of zeros where none may be.
    Special = "special",
    /// A spanning-tree frame.
    SpanningTree = "spanning_tree",
    /// Source or destination peer is not known.
    UnknownPeer = "unknown_peer",
    /// No established connections lead to the destination peer.
    NoRoute = "no_route",
    /// Multicast of this host's own bridge, which concerns nobody else.
    OwnMulticast = "own_multicast",
    /// Came in a plain sleeve packet from another address than that of its link.
    OtherAddress = "other_address",
    /// Came in a plain sleeve packet of a neighbour that sends by another link.
    IdleLink = "idle_link",
    /// Has the MAC address of another peer's host or container.
    SpoofedMac = "spoofed_mac",
    /// Has the IP address of another peer's container.
    SpoofedAddress = "spoofed_address",
    /// Has an address that no container of this host was given.
    NotOwn = "not_own",
    /// A router advertisement of IPv6, which containers may not send.
    RouterAdvertisement = "router_advertisement",
    /// An answer of a DHCP server, which containers may not send.
    DhcpServer = "dhcp_server",
    /// Has a new MAC address, and its peer has as many as one may have.
    TooManyMacs = "too_many_macs",
    /// The next hop has no link.
    NoLink = "no_link",
    /// Captured by ourselves: it went round in a circle.
    OwnSource = "own_source",
    /// Would go back to the neighbour that it came from.
    Returned = "returned",
    /// For all peers, and from another neighbour than those of its source come from.
    NotParent = "not_parent",
    /// For all peers, and there are none.
    NoPeers = "no_peers",
    /// The neighbour's address is not known yet.
    NoAddress = "no_address",
    /// Does not fit the link and must not be fragmented; its sender was told.
    TooBig = "too_big",
    /// Does not fit the link, must not be fragmented, and is for all peers.
    TooBigBroadcast = "too_big_broadcast",
    /// Larger than any packet, or cannot be fragmented.
    Oversized = "oversized",
    /// The neighbour does not read as fast as packets for it come.
    Congested = "congested",
    /// The packet exceeded the path MTU and could not be sent otherwise.
    PathMtu = "path_mtu",
    /// The kernel did not take the packet.
    SendFailed = "send_failed",
    /// The TAP device did not take the frame.
    TapFailed = "tap_failed",
    /// A frame or a header ends before it should. Counted per packet.
    Malformed = "malformed",
    /// A packet that was cut off by the receive buffer.
    Truncated = "truncated",
    /// A packet whose sender's name has no link.
    UnknownSender = "unknown_sender",
    /// A packet that was not sealed with the key of its link.
    Forged = "forged",
    /// A packet that was seen before.
    Replayed = "replayed",
    /// A native datagram under a number that no key has (any more).
    UnknownSession = "unknown_session",
    /// The key of a native link has no numbers left for datagrams.
    KeyWorn = "key_worn",
}

/// Number of reasons to drop.
pub const DROPS: usize = DropReason::KeyWorn as usize + 1;

impl DropReason {
    /// Returns true if it is packets that are counted, which may hold any number of frames: such
    /// drops are outside of the sum over frames.
    pub const fn counts_packets(self) -> bool {
        matches!(
            self,
            DropReason::Malformed
                | DropReason::Truncated
                | DropReason::UnknownSender
                | DropReason::Forged
                | DropReason::Replayed
                | DropReason::UnknownSession
        )
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<SwitchDrop> for DropReason {
    fn from(reason: SwitchDrop) -> DropReason {
        match reason {
            SwitchDrop::Special => DropReason::Special,
            SwitchDrop::SpanningTree => DropReason::SpanningTree,
            SwitchDrop::UnknownPeer => DropReason::UnknownPeer,
            SwitchDrop::NoRoute => DropReason::NoRoute,
            SwitchDrop::NoLink => DropReason::NoLink,
            SwitchDrop::OwnSource => DropReason::OwnSource,
            SwitchDrop::Returned => DropReason::Returned,
            SwitchDrop::NotParent => DropReason::NotParent,
        }
    }
}

impl From<sleeve::DropReason> for DropReason {
    fn from(reason: sleeve::DropReason) -> DropReason {
        match reason {
            sleeve::DropReason::NoAddress => DropReason::NoAddress,
            sleeve::DropReason::TooBigBroadcast => DropReason::TooBigBroadcast,
            sleeve::DropReason::TooBig => DropReason::Oversized,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> DropReason {
        match error {
            OpenError::TooShort => DropReason::Malformed,
            OpenError::OtherSender => DropReason::UnknownSender,
            OpenError::Forged => DropReason::Forged,
            OpenError::Replayed => DropReason::Replayed,
        }
    }
}

impl From<native::OpenError> for DropReason {
    fn from(error: native::OpenError) -> DropReason {
        match error {
            native::OpenError::Forged => DropReason::Forged,
            native::OpenError::Replayed => DropReason::Replayed,
        }
    }
}

/// The counters of all threads, summed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    counts: [u64; COUNTS],
    drops: [u64; DROPS],
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            counts: [0; COUNTS],
            drops: [0; DROPS],
        }
    }
}

impl Totals {
    /// Adds to a counter.
    pub fn add(&mut self, count: usize, by: u64) {
        if let Some(total) = self.counts.get_mut(count) {
            *total += by;
        }
    }

    /// Adds to a counter of drops.
    pub fn add_drops(&mut self, reason: usize, by: u64) {
        if let Some(total) = self.drops.get_mut(reason) {
            *total += by;
        }
    }

    /// Returns the value of a counter.
    pub const fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Returns how many frames (or packets, [`DropReason::counts_packets`]) were dropped for
    /// `reason`.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Frames that came in or were made here, and frames that went out or were dropped. The two
    /// are equal whenever no frame is on the way inside a thread.
    pub fn balance(&self) -> (u64, u64) {
        let sum = |counts: &[Count]| counts.iter().map(|&count| self.get(count)).sum::<u64>();
        let frames = DropReason::ALL.iter().filter(|r| !r.counts_packets());
        let drops: u64 = frames.map(|&reason| self.dropped(reason)).sum();
        (
            sum(&[Count::Captured, Count::Received, Count::Made]),
            sum(&[Count::Injected, Count::Sent, Count::Specials]) + drops,
        )
    }
}
