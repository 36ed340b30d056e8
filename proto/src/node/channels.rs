//! Channels of gossip and their handlers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::gossip::{ChannelId, News, SURROGATES_MAX, Seen, TOPOLOGY};

/// Content to be sent on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The channel's complete state at the time of sending (`Output::NeedState`).
    State,
    /// These bytes. While they wait to be sent, the channel's state may replace them, so they must
    /// be part of it.
    Payload(Vec<u8>),
}

impl From<Content> for News {
    fn from(content: Content) -> News {
        match content {
            Content::State => News::State,
            Content::Payload(bytes) => News::Payload(bytes.into()),
        }
    }
}

/// All known channels.
#[derive(Debug)]
pub(super) struct Channels {
    ids: BTreeMap<Arc<str>, ChannelId>,
    table: Vec<(Arc<str>, Kind)>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Topology,
    /// The driver handles it.
    Outside,
    /// Nobody here knows it.
    Surrogate(Seen),
}

impl Channels {
    pub(super) fn new(outside: &[String]) -> Channels {
        let mut channels = Channels {
            ids: BTreeMap::new(),
            table: Vec::new(),
        };
        channels.add(TOPOLOGY, Kind::Topology);
        for name in outside {
            channels.add(name, Kind::Outside);
        }
        channels
    }

    fn add(&mut self, name: &str, kind: Kind) -> ChannelId {
        let id = ChannelId(self.table.len());
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), id);
        self.table.push((name, kind));
        id
    }

    /// Returns the channel of this name, if necessary a surrogate.
    ///
    /// Rule: `docs/protocol/mesh.md#5-3-channels`.
    pub(super) fn find_or_add(&mut self, name: &str) -> Option<ChannelId> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let surrogates = self
            .table
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Surrogate(_)));
        if surrogates.count() >= SURROGATES_MAX {
            return None;
        }
        Some(self.add(name, Kind::Surrogate(Seen::default())))
    }

    pub(super) fn outside(&self, name: &str) -> Option<ChannelId> {
        let id = self.ids.get(name)?;
        matches!(self.kind(*id), Kind::Outside).then_some(*id)
    }

    pub(super) fn name(&self, id: ChannelId) -> &Arc<str> {
        &self.table[id.0].0
    }

    pub(super) fn kind_mut(&mut self, id: ChannelId) -> &mut Kind {
        &mut self.table[id.0].1
    }

    /// Returns the channels that the driver handles.
    pub(super) fn all_outside(&self) -> Vec<ChannelId> {
        let table = self.table.iter().enumerate();
        table
            .filter(|(_, (_, kind))| matches!(kind, Kind::Outside))
            .map(|(index, _)| ChannelId(index))
            .collect()
    }

    /// Lets surrogates forget what they saw long ago.
    pub(super) fn age(&mut self) {
        for (_, kind) in &mut self.table {
            if let Kind::Surrogate(seen) = kind {
                seen.age();
            }
        }
    }

    fn kind(&self, id: ChannelId) -> &Kind {
        &self.table[id.0].1
    }

    pub(super) fn has_state(&self, id: ChannelId) -> bool {
        !matches!(self.kind(id), Kind::Surrogate(_))
    }
}

/// The channel of topology, which is the first.
pub(super) const TOPOLOGY_ID: ChannelId = ChannelId(0);
