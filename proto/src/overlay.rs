//! The overlays of one connection: which are agreed on, which one carries data, and why.
//!
//! Both ends offer names of overlays; those known to both get an index and a forwarder each.
//! A forwarder is prepared when the connection is introduced, told to start when the connection
//! has won over duplicates, and talks to its other end by control messages:
//!
//! ```text
//! switched   7 | index | tag | content        both ends offered overlays
//! legacy     tag (1, 2, 3) | content          the other end offered none: sleeve alone
//! ```
//!
//! Data goes to the first established forwarder; while none is, to the first that works. A
//! forwarder on hold is passed over until it is well again; one that failed never comes back.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};

use crate::crypto::SessionKey;
use crate::message::{OVERLAYS_MAX, OverlayMode};
use crate::sleeve::link::{Control, Link, LinkOutput, Path};
use crate::sleeve::{LinkId, Special};
use crate::types::{ConnUid, Time};

/// An overlay that this build can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overlay {
    /// Weave's UDP encapsulation.
    Sleeve,
}

impl Overlay {
    /// The name under which it is offered.
    pub const fn name(self) -> &'static str {
        match self {
            Overlay::Sleeve => "sleeve",
        }
    }
}

/// The two ends have no overlay in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no overlays in common with peer: we offer {ours:?}, it offers {theirs:?}")]
pub struct NoCommonOverlay {
    /// What we offer.
    pub ours: String,
    /// What the other end offers.
    pub theirs: String,
}

/// The common names, in the order that gives each its index: that of our own list.
///
/// No more than an index can name are used.
pub fn common<'a, S: AsRef<str>>(
    ours: &[&'a str],
    theirs: &[S],
) -> Result<Vec<&'a str>, NoCommonOverlay> {
    let offered = |name: &&str| theirs.iter().any(|theirs| theirs.as_ref() == *name);
    let names: Vec<&str> = ours
        .iter()
        .copied()
        .filter(offered)
        .take(OVERLAYS_MAX)
        .collect();
    if names.is_empty() {
        return Err(NoCommonOverlay {
            ours: ours.join(" "),
            theirs: theirs.iter().map(S::as_ref).collect::<Vec<_>>().join(" "),
        });
    }
    Ok(names)
}

/// What a connection tells its overlays when it is introduced.
#[derive(Clone, Debug)]
pub struct Params {
    /// The number of the connection.
    pub uid: ConnUid,
    /// The other end's TCP address.
    pub remote: SocketAddr,
    /// Whether we made the connection, and so know where the other end listens.
    pub dialled: bool,
    /// The key for packets; `None` without a password or on a trusted link.
    pub key: Option<SessionKey>,
}

/// How a forwarder is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not established yet.
    Pending,
    /// Established.
    Established,
    /// Established before, but nothing gets through at the moment.
    OnHold(String),
    /// Over, for the life of the connection.
    Failed(String),
}

/// A forwarder as status pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwarderView {
    /// Its overlay.
    pub overlay: Overlay,
    /// Its link.
    pub link: LinkId,
    /// How it is doing, and why not better.
    pub health: Health,
    /// How its packets travel; `None` once it failed.
    pub path: Option<Path>,
}

/// What the overlays of a connection want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchOutput {
    /// Send this protocol message down the connection.
    Message(Vec<u8>),
    /// Send a special frame over a link.
    Special {
        /// The link.
        link: LinkId,
        /// The frame.
        special: Special,
    },
    /// A link's path changed.
    PathChanged(LinkId, Path),
    /// The peer's end of a link moved.
    Moved {
        /// The link.
        link: LinkId,
        /// Where it was.
        from: SocketAddrV4,
        /// Where it is.
        to: SocketAddrV4,
    },
    /// The links to try for a frame, in this order, from here on.
    Order(Vec<LinkId>),
    /// The first forwarder is established. Comes once.
    Established,
    /// A forwarder is over; others go on.
    LinkFailed {
        /// The link.
        link: LinkId,
        /// Its overlay.
        overlay: Overlay,
        /// Why.
        reason: String,
    },
    /// No forwarder is left: the connection is to be closed. Comes once, at the end.
    Broken(String),
}

/// A control message that no forwarder understands. It is ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRejected {
    /// There is no forwarder in this place.
    #[error("no forwarder in place {0}")]
    NoSuchForwarder(usize),
    /// The forwarder does not know it.
    #[error(transparent)]
    Sleeve(#[from] crate::sleeve::link::ControlError),
}

/// The forwarders of one connection.
#[derive(Debug)]
pub struct OverlaySwitch {
    mode: OverlayMode,
    slots: Vec<Slot>,
    order: Vec<LinkId>,
    established: bool,
    confirmed: bool,
    broken: bool,
    outputs: VecDeque<SwitchOutput>,
}

#[derive(Debug)]
struct Slot {
    overlay: Overlay,
    link: LinkId,
    health: Health,
    forwarder: Option<Forwarder>,
}

/// One way to the peer. A further overlay is a further variant.
#[derive(Debug)]
enum Forwarder {
    Sleeve(Link),
}

impl OverlaySwitch {
    /// Agrees on overlays with the other end, whose feature is `theirs`, and prepares their
    /// forwarders. `link_id` names each.
    pub fn prepare(
        ours: &[Overlay],
        theirs: Option<&[String]>,
        params: &Params,
        mut link_id: impl FnMut() -> LinkId,
    ) -> Result<OverlaySwitch, NoCommonOverlay> {
        let offers: Vec<&str> = ours.iter().map(|overlay| overlay.name()).collect();
        let (agreed, mode) = match theirs {
            None => (
                common(&offers, &[Overlay::Sleeve.name()])?,
                OverlayMode::Legacy,
            ),
            Some(theirs) => {
                let agreed = common(&offers, theirs)?;
                let common = u16::try_from(agreed.len()).unwrap_or(u16::MAX);
                (agreed, OverlayMode::Switched { common })
            }
        };
        let slots = ours
            .iter()
            .filter(|overlay| agreed.contains(&overlay.name()))
            .map(|overlay| Slot::prepare(*overlay, params, link_id()))
            .collect();
        Ok(OverlaySwitch {
            mode,
            slots,
            order: Vec::new(),
            established: false,
            confirmed: false,
            broken: false,
            outputs: VecDeque::new(),
        })
    }

    /// The forwarders, each in its place.
    pub fn forwarders(&self) -> impl Iterator<Item = ForwarderView> {
        self.slots.iter().map(|slot| ForwarderView {
            overlay: slot.overlay,
            link: slot.link,
            health: slot.health.clone(),
            path: slot.path(),
        })
    }

    /// The forwarder that data goes to at the moment.
    pub fn active(&self) -> Option<ForwarderView> {
        let first = *self.order.first()?;
        self.forwarders().find(|view| view.link == first)
    }

    /// Whether a forwarder was established.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// How control messages are told apart.
    pub fn mode(&self) -> OverlayMode {
        self.mode
    }

    /// What to do next, in order, until `None`. Any call that takes `now` may add to it.
    pub fn poll_output(&mut self) -> Option<SwitchOutput> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is due. Any call that takes `now` may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.slots
            .iter()
            .filter_map(|slot| match &slot.forwarder {
                Some(Forwarder::Sleeve(link)) => link.poll_timeout(),
                None => None,
            })
            .min()
    }

    /// The connection is the one to be used with its peer: start to send.
    pub fn confirm(&mut self, now: Time) {
        self.confirmed = true;
        self.each(|forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.confirm(now),
        });
    }

    /// A control message for the forwarder in this place arrived.
    pub fn handle_control(
        &mut self,
        now: Time,
        place: usize,
        tag: u8,
        content: &[u8],
    ) -> Result<(), ControlRejected> {
        let slot = self.slots.get_mut(place);
        let slot = slot.ok_or(ControlRejected::NoSuchForwarder(place))?;
        match &mut slot.forwarder {
            Some(Forwarder::Sleeve(link)) => {
                link.handle_control(now, Control::decode(tag, content)?);
            }
            None => return Ok(()),
        }
        self.collect();
        Ok(())
    }

    /// An authentic special frame arrived over a link, from this address.
    pub fn handle_special(
        &mut self,
        now: Time,
        link: LinkId,
        from: SocketAddrV4,
        special: Special,
    ) {
        self.one(link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_special(now, from, special),
        });
    }

    /// The kernel refused a packet of a link since its path takes `path_mtu` bytes.
    pub fn handle_too_big(&mut self, now: Time, link: LinkId, path_mtu: usize) {
        self.one(link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_too_big(now, path_mtu),
        });
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.each(|forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_timeout(now),
        });
    }

    fn one(&mut self, link: LinkId, act: impl FnOnce(&mut Forwarder)) {
        let slot = self.slots.iter_mut().find(|slot| slot.link == link);
        if let Some(forwarder) = slot.and_then(|slot| slot.forwarder.as_mut()) {
            act(forwarder);
        }
        self.collect();
    }

    fn each(&mut self, act: impl FnMut(&mut Forwarder)) {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.forwarder.as_mut())
            .for_each(act);
        self.collect();
    }

    /// Takes over what the forwarders want, and sees what that means for all of them.
    fn collect(&mut self) {
        let mut rising = false;
        for (place, slot) in self.slots.iter_mut().enumerate() {
            rising |= slot.collect(self.mode, place, &mut self.outputs);
        }
        let order = preference(self.slots.iter().map(|slot| (slot.link, &slot.health)));
        if self.confirmed && order != self.order {
            self.order.clone_from(&order);
            self.outputs.push_back(SwitchOutput::Order(order));
        }
        if rising && !self.established {
            self.established = true;
            self.outputs.push_back(SwitchOutput::Established);
        }
        let over = self
            .slots
            .iter()
            .all(|slot| matches!(slot.health, Health::Failed(_)));
        if over && !self.broken {
            self.broken = true;
            self.outputs.push_back(SwitchOutput::Broken(self.epitaph()));
        }
    }

    fn epitaph(&self) -> String {
        let reasons: Vec<String> = self
            .slots
            .iter()
            .filter_map(|slot| match &slot.health {
                Health::Failed(reason) => Some(format!("{}: {reason}", slot.overlay.name())),
                _ => None,
            })
            .collect();
        format!("no working forwarders to peer ({})", reasons.join("; "))
    }
}

/// The links to try for a frame: established ones before those that are not yet, each in the
/// order of their indices.
fn preference<'a>(slots: impl Iterator<Item = (LinkId, &'a Health)> + Clone) -> Vec<LinkId> {
    let with = |wanted: Health| {
        slots
            .clone()
            .filter(move |(_, health)| **health == wanted)
            .map(|(link, _)| link)
    };
    with(Health::Established)
        .chain(with(Health::Pending))
        .collect()
}

impl Slot {
    fn prepare(overlay: Overlay, params: &Params, link: LinkId) -> Slot {
        let forwarder = match (overlay, params.remote) {
            (Overlay::Sleeve, SocketAddr::V4(remote)) => Ok(Forwarder::Sleeve(Link::new(
                params.uid,
                params.key.is_some(),
                params.dialled.then_some(remote),
            ))),
            (Overlay::Sleeve, SocketAddr::V6(_)) => Err("sleeve needs IPv4".to_owned()),
        };
        let (forwarder, health) = match forwarder {
            Ok(forwarder) => (Some(forwarder), Health::Pending),
            Err(reason) => (None, Health::Failed(reason)),
        };
        Slot {
            overlay,
            link,
            health,
            forwarder,
        }
    }

    fn path(&self) -> Option<Path> {
        self.forwarder.as_ref().map(|forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.path(),
        })
    }

    /// Turns the forwarder's outputs into those of the switch. Tells whether it became
    /// established.
    fn collect(
        &mut self,
        mode: OverlayMode,
        place: usize,
        to: &mut VecDeque<SwitchOutput>,
    ) -> bool {
        let mut rising = false;
        while let Some(Forwarder::Sleeve(forwarder)) = &mut self.forwarder {
            let Some(output) = forwarder.poll_output() else {
                break;
            };
            let link = self.link;
            match output {
                LinkOutput::Special(special) => {
                    to.push_back(SwitchOutput::Special { link, special });
                }
                LinkOutput::Control(control) => {
                    let content = control.content();
                    if let Some(message) = mode.control(place, control.tag(), &content) {
                        to.push_back(SwitchOutput::Message(message.encode()));
                    }
                }
                LinkOutput::PathChanged => {
                    to.push_back(SwitchOutput::PathChanged(link, forwarder.path()));
                }
                LinkOutput::Moved { from, to: there } => to.push_back(SwitchOutput::Moved {
                    link,
                    from,
                    to: there,
                }),
                LinkOutput::Established => {
                    self.health = Health::Established;
                    rising = true;
                }
                LinkOutput::Failed(error) => {
                    let (overlay, reason) = (self.overlay, error.to_string());
                    self.health = Health::Failed(reason.clone());
                    self.forwarder = None;
                    to.push_back(SwitchOutput::LinkFailed {
                        link,
                        overlay,
                        reason,
                    });
                }
            }
        }
        rising
    }
}

#[cfg(test)]
mod tests;
