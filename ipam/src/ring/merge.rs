//! Merging another peer's copy of the ring into ours.

use proto::types::PeerName;

use super::copy::{Change, Entry, Ring, RingError, next_token};
use crate::range::{Address, Range};

/// Why a received ring was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The received ring violates its invariants.
    #[error(transparent)]
    Invalid(RingError),
    /// The two rings have different seeds.
    #[error("Received ring was seeded differently from ours")]
    Seeds,
    /// The two rings have different universes.
    #[error("Received range differs from ours")]
    Universe,
    /// A token of another peer lies in a range of ours with addresses in use.
    #[error("Peer {peer} says it owns the IP range from {token}, which I think I own")]
    EntryInMyRange {
        /// The owner of the token.
        peer: PeerName,
        /// The token.
        token: Address,
    },
    /// An entry of ours with addresses in use has another owner at the same version.
    #[error("Inconsistent entries for {token}: owned by {mine} but incoming message says {theirs}")]
    Inconsistent {
        /// The entry.
        token: Address,
        /// The owner in our ring: us.
        mine: PeerName,
        /// The owner in theirs.
        theirs: PeerName,
    },
    /// An entry of ours with addresses in use has another owner at a higher version.
    #[error(
        "Received update for IP range I own at {token} v{mine}: \
         incoming message says owner {owner} v{theirs}"
    )]
    NewerVersion {
        /// The entry.
        token: Address,
        /// Our version.
        mine: u32,
        /// The owner in their ring.
        owner: PeerName,
        /// Their version.
        theirs: u32,
    },
    /// The merged ring would violate the invariants.
    #[error("Merge of incoming data causes: {0}")]
    Result(RingError),
    /// An address in use here would pass to another peer.
    #[error("Received ring gives away {0}, which is in use here")]
    InUse(Address),
}

/// Result of a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The entries after it.
    pub entries: Vec<Entry>,
    /// The seeds, if ours had none.
    pub seeds: Option<Vec<PeerName>>,
    /// The previous value of each changed entry.
    pub changes: Vec<Change>,
    /// Whether something was taken from theirs.
    pub updated: bool,
}

/// A merge that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Why.
    pub error: MergeError,
    /// New versions of our entries that had a higher version in the received ring, up to the error.
    /// Weave Net keeps these although it refuses the rest.
    pub raised: Vec<(Address, u32)>,
}

/// Two contradicting entries: one of ours, and one that gives all or part of its interval to
/// another peer.
///
/// Rule: `docs/protocol/ipam.md#3-4-contests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contest {
    /// How they contradict each other.
    pub kind: ContestKind,
    /// Our entry, or our entry before their token.
    pub mine: Entry,
    /// Theirs.
    pub theirs: Entry,
    /// Whether no address of the interval is in use.
    pub idle: bool,
}

/// How two entries contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContestKind {
    /// Theirs is newer, and addresses of ours are in use.
    Newer,
    /// Both have the same version, and ours says that we own it.
    SameVersion,
    /// Theirs is a new token inside our interval, where addresses are in use.
    Inside,
    /// Theirs is a new token after our last one.
    Behind,
    /// Both have the same version, and neither says that we own it.
    Others,
}

/// Decision about a [`Contest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As in Weave Net: refuse the message, or, of two entries with the same version and idle
    /// addresses, take the one that reports more free addresses.
    AsOriginal,
    /// Keep our entry and continue.
    KeepMine,
    /// Take theirs.
    TakeTheirs,
}

/// What a merge needs to know about the peer whose ring it changes.
pub trait Rules {
    /// Returns true if all of `range` is ours and none of its addresses is in use.
    fn is_idle(&self, range: Range) -> bool;

    /// Decides a contest.
    fn decide(&mut self, contest: &Contest) -> Decision;
}

/// Weave Net's rules: every contest about addresses in use is an error.
#[derive(Debug)]
pub struct WeaveRules<F>(pub F);

impl<F: Fn(Range) -> bool> Rules for WeaveRules<F> {
    fn is_idle(&self, range: Range) -> bool {
        (self.0)(range)
    }

    fn decide(&mut self, _: &Contest) -> Decision {
        Decision::AsOriginal
    }
}

struct Merge<'a, R> {
    us: PeerName,
    mine: &'a Ring,
    rules: &'a mut R,
    out: Merged,
    raised: Vec<(Address, u32)>,
    /// The entry last taken from our ring, unless one of theirs was taken since.
    previous: Option<Entry>,
}

impl Ring {
    /// Computes the result of merging `theirs` into this ring, which is the copy of peer `us`.
    ///
    /// Rule: `docs/protocol/ipam.md#3-merge`.
    pub fn merge(
        &self,
        us: PeerName,
        theirs: &Ring,
        rules: &mut impl Rules,
    ) -> Result<Merged, Failed> {
        let mut merge = Merge {
            us,
            mine: self,
            rules,
            out: Merged::default(),
            raised: Vec::new(),
            previous: None,
        };
        let result = merge.run(theirs);
        let Merge { out, raised, .. } = merge;
        match result {
            Ok(()) => Ok(out),
            Err(error) => Err(Failed { error, raised }),
        }
    }

    /// Applies the result of a merge to this ring.
    pub fn apply(&mut self, merged: Merged) {
        self.entries = merged.entries;
        if let Some(seeds) = merged.seeds {
            self.seeds = seeds;
        }
    }
}

impl<R: Rules> Merge<'_, R> {
    /// Rule: `docs/protocol/ipam.md#3-1-checks`.
    fn run(&mut self, theirs: &Ring) -> Result<(), MergeError> {
        theirs.check().map_err(MergeError::Invalid)?;
        let seeded = !self.mine.seeds.is_empty();
        if seeded && !theirs.seeds.is_empty() && self.mine.seeds != theirs.seeds {
            return Err(MergeError::Seeds);
        }
        if self.mine.universe() != theirs.universe() {
            return Err(MergeError::Universe);
        }
        let most = self.mine.entries.len().max(theirs.entries.len());
        self.out.entries.reserve(most);
        self.walk(&theirs.entries)?;
        self.clip();
        // Only a changed ring can violate the invariants.
        if !self.out.changes.is_empty() {
            let result = Ring {
                entries: std::mem::take(&mut self.out.entries),
                ..Ring::new(self.mine.universe())
            };
            result.check().map_err(MergeError::Result)?;
            self.out.entries = result.entries;
        }
        if !seeded && !theirs.seeds.is_empty() {
            self.out.seeds = Some(theirs.seeds.clone());
        }
        Ok(())
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn walk(&mut self, theirs: &[Entry]) -> Result<(), MergeError> {
        let mine = &self.mine.entries;
        let (mut i, mut j) = (0, 0);
        while let (Some(m), Some(t)) = (mine.get(i), theirs.get(j)) {
            match m.token.cmp(&t.token) {
                std::cmp::Ordering::Less => {
                    self.keep(*m);
                    i += 1;
                }
                std::cmp::Ordering::Greater => {
                    self.new_token(t, m.token)?;
                    j += 1;
                }
                std::cmp::Ordering::Equal => {
                    self.same_token(m, t, next_token(mine, i))?;
                    i += 1;
                    j += 1;
                }
            }
        }
        self.out.entries.extend(mine.iter().skip(i));
        for t in theirs.iter().skip(j) {
            self.behind(t)?;
        }
        Ok(())
    }

    fn keep(&mut self, entry: Entry) {
        self.out.entries.push(entry);
        self.previous = Some(entry);
    }

    fn take(&mut self, entry: Entry, before: Option<Entry>) {
        self.out.entries.push(entry);
        self.out.changes.push((entry.token, before));
        self.out.updated = true;
        self.previous = None;
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn new_token(&mut self, theirs: &Entry, next: Address) -> Result<(), MergeError> {
        if let Some(mine) = self.contested(theirs)
            && !self.idle(theirs.token, next)
        {
            let decision = self.rules.decide(&Contest {
                kind: ContestKind::Inside,
                mine,
                theirs: *theirs,
                idle: false,
            });
            match decision {
                Decision::AsOriginal => return Err(entry_in_my_range(theirs)),
                Decision::KeepMine => return Ok(()),
                Decision::TakeTheirs => {}
            }
        }
        self.take(*theirs, None);
        Ok(())
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn behind(&mut self, theirs: &Entry) -> Result<(), MergeError> {
        if let Some(mine) = self.contested(theirs) {
            let next = self
                .mine
                .entries
                .first()
                .map_or(self.mine.start, |first| first.token);
            let decision = self.rules.decide(&Contest {
                kind: ContestKind::Behind,
                mine,
                theirs: *theirs,
                idle: self.idle(theirs.token, next),
            });
            match decision {
                Decision::AsOriginal => return Err(entry_in_my_range(theirs)),
                Decision::KeepMine => return Ok(()),
                Decision::TakeTheirs => {}
            }
        }
        self.take(*theirs, None);
        Ok(())
    }

    /// Returns our entry whose interval a new token of another peer would split, if any.
    fn contested(&self, theirs: &Entry) -> Option<Entry> {
        let previous = self.previous.filter(|entry| entry.peer == self.us);
        previous.filter(|_| theirs.peer != self.us)
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn same_token(
        &mut self,
        mine: &Entry,
        theirs: &Entry,
        next: Address,
    ) -> Result<(), MergeError> {
        let ours = mine.peer == self.us;
        if theirs.version < mine.version
            || (theirs.version == mine.version && theirs.peer == mine.peer)
        {
            self.keep(*mine);
        } else if theirs.version == mine.version {
            self.same_version(mine, theirs, next)?;
        } else if !ours {
            self.take(*theirs, Some(*mine));
        } else if theirs.peer == self.us {
            let version = theirs.version.saturating_add(1);
            self.raised.push((mine.token, version));
            self.out.changes.push((mine.token, Some(*mine)));
            self.out.entries.push(Entry { version, ..*mine });
        } else {
            self.newer(mine, theirs, next)?;
        }
        Ok(())
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn same_version(
        &mut self,
        mine: &Entry,
        theirs: &Entry,
        next: Address,
    ) -> Result<(), MergeError> {
        let mut take = mine.free < theirs.free;
        let ours = mine.peer == self.us;
        let idle = !ours || self.idle(mine.token, next);
        let decision = self.rules.decide(&Contest {
            kind: if ours {
                ContestKind::SameVersion
            } else {
                ContestKind::Others
            },
            mine: *mine,
            theirs: *theirs,
            idle,
        });
        match decision {
            Decision::AsOriginal if !idle => {
                return Err(MergeError::Inconsistent {
                    token: mine.token,
                    mine: mine.peer,
                    theirs: theirs.peer,
                });
            }
            Decision::AsOriginal => {}
            Decision::KeepMine => take = false,
            Decision::TakeTheirs => take = true,
        }
        if take {
            self.take(*theirs, Some(*mine));
        } else {
            self.keep(*mine);
        }
        Ok(())
    }

    /// Rule: `docs/protocol/ipam.md#3-2-walk`.
    fn newer(&mut self, mine: &Entry, theirs: &Entry, next: Address) -> Result<(), MergeError> {
        if !self.idle(mine.token, next) {
            let decision = self.rules.decide(&Contest {
                kind: ContestKind::Newer,
                mine: *mine,
                theirs: *theirs,
                idle: false,
            });
            match decision {
                Decision::AsOriginal => {
                    return Err(MergeError::NewerVersion {
                        token: mine.token,
                        mine: mine.version,
                        owner: theirs.peer,
                        theirs: theirs.version,
                    });
                }
                Decision::KeepMine => {
                    self.keep(*mine);
                    return Ok(());
                }
                Decision::TakeTheirs => {}
            }
        }
        self.take(*theirs, Some(*mine));
        Ok(())
    }

    fn idle(&self, from: Address, to: Address) -> bool {
        self.mine
            .ranges_between(from, to)
            .into_iter()
            .filter(|range| !range.is_empty())
            .all(|range| self.rules.is_idle(range))
    }

    /// An idle interval of ours that was split still reports its old number of free addresses.
    /// Corrects that.
    ///
    /// Rule: `docs/protocol/ipam.md#3-3-result`.
    fn clip(&mut self) {
        if self.out.changes.is_empty() {
            return;
        }
        for i in 0..self.out.entries.len() {
            let entry = self.out.entries[i];
            if entry.peer != self.us {
                continue;
            }
            let next = next_token(&self.out.entries, i);
            let distance = self.mine.distance(entry.token, next);
            if entry.free > distance {
                self.out.entries[i].free = distance;
                // Of several changes of one token, the first has the previous value.
                self.out.changes.push((entry.token, Some(entry)));
            }
        }
    }
}

fn entry_in_my_range(theirs: &Entry) -> MergeError {
    MergeError::EntryInMyRange {
        peer: theirs.peer,
        token: theirs.token,
    }
}
