//! Dispatch of gossip: a table from topic to consumer.

use std::collections::BTreeMap;

use ipam::allocator::Channel;
use proto::names::gossip;
use proto::node::DeliveryKind;
use proto::types::PeerName;
use tokio::sync::mpsc;

/// Messages that wait for a consumer outside of the loop; further ones are dropped and counted.
pub const DELIVERIES_MAX: usize = 64;

/// A message for a consumer outside of the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Destination and source.
    pub kind: DeliveryKind,
    /// The neighbour that it came from.
    pub neighbour: PeerName,
    /// The message.
    pub payload: Vec<u8>,
}

/// The consumer of a topic.
#[derive(Clone, Debug)]
pub(super) enum Consumer {
    /// The allocator, on one of its channels.
    Allocator(Channel),
    /// The names.
    Names,
    /// Somebody outside of the loop, who may be slower than the mesh.
    Outside(mpsc::Sender<Delivery>),
}

/// The table, and what became of messages that nobody took.
#[derive(Debug, Default)]
pub struct Consumers {
    table: BTreeMap<String, Consumer>,
    left_over: LeftOver,
}

/// Messages that nobody took, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOver {
    /// Messages of a topic that has no consumer.
    pub unclaimed: u64,
    /// Messages that their consumer had no room for.
    pub lost: u64,
}

impl Consumers {
    /// Nobody takes anything yet.
    pub fn new() -> Consumers {
        Consumers::default()
    }

    /// Gives the allocator its topics.
    #[must_use]
    pub fn with_allocator(mut self) -> Consumers {
        for channel in [Channel::Ring, Channel::Leases] {
            let name = channel.name().to_owned();
            self.table.insert(name, Consumer::Allocator(channel));
        }
        self
    }

    /// Gives the names their topic.
    #[must_use]
    pub fn with_names(mut self) -> Consumers {
        self.table
            .insert(gossip::CHANNEL.to_owned(), Consumer::Names);
        self
    }

    /// Adds a consumer outside of the loop. Returns where its messages come out.
    pub fn outside(&mut self, topic: &str) -> mpsc::Receiver<Delivery> {
        let (sender, receiver) = mpsc::channel(DELIVERIES_MAX);
        self.table
            .insert(topic.to_owned(), Consumer::Outside(sender));
        receiver
    }

    /// Returns all topics, as the node is to know them.
    pub fn topics(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Returns who takes the messages of a topic.
    pub(super) fn of(&self, topic: &str) -> Option<&Consumer> {
        self.table.get(topic)
    }

    /// Counts a message that no consumer is for.
    pub(super) fn count_unclaimed(&mut self) {
        self.left_over.unclaimed += 1;
    }

    /// Counts a message that its consumer had no room for.
    pub(super) fn count_lost(&mut self) {
        self.left_over.lost += 1;
    }

    /// Returns the counts of messages that nobody took.
    pub(super) fn left_over(&self) -> LeftOver {
        self.left_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_its_consumer() {
        let mut consumers = Consumers::new().with_allocator().with_names();
        let mut inbox = consumers.outside("ours");
        assert_eq!(
            consumers.topics(),
            ["IPallocation", "nameserver", "ours", "weft-leases"]
        );
        let Some(Consumer::Outside(sender)) = consumers.of("ours") else {
            panic!("no consumer");
        };
        let delivery = Delivery {
            kind: DeliveryKind::Gossip,
            neighbour: PeerName::UNKNOWN,
            payload: vec![1],
        };
        for _ in 0..DELIVERIES_MAX {
            sender.try_send(delivery.clone()).unwrap();
        }
        assert!(sender.try_send(delivery.clone()).is_err(), "it is bounded");
        assert_eq!(inbox.try_recv(), Ok(delivery));
        assert!(consumers.of("theirs").is_none());
    }
}
