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
//! forwarder on hold is passed over until it is well again; one that failed never comes back. A
//! connection lives as long as one of its forwarders may still carry something.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use self::slot::{Forwarder, Slot};
use crate::message::{OVERLAYS_MAX, OverlayMode};
use crate::native::{self, Report};
use crate::sleeve::{self, LinkId, Special};
use crate::types::Time;

pub use kind::Overlay;
pub use output::{ForwarderView, Health, LinkAction, LinkOutput, SwitchOutput};
pub use params::Params;

mod kind;
mod output;
mod params;
mod slot;

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

/// A control message that no forwarder understands. It is ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRejected {
    /// There is no forwarder in this place.
    #[error("no forwarder in place {0}")]
    NoSuchForwarder(usize),
    /// Sleeve does not know it.
    #[error(transparent)]
    Sleeve(#[from] crate::sleeve::link::ControlError),
    /// The native overlay does not know it, or not now.
    #[error(transparent)]
    Native(#[from] crate::native::link::ControlError),
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
            sealed: slot.is_sealed(),
            native: slot.native_view(),
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
        let slots = self.slots.iter();
        let timeouts = slots.clone().filter_map(Slot::poll_timeout);
        // As long as one forwarder can carry the connection, none needs to be given up.
        let hopeless = match slots.clone().all(|slot| slot.hopeless_at().is_some()) {
            true if !self.broken => slots.filter_map(Slot::hopeless_at).max(),
            _ => None,
        };
        timeouts.chain(hopeless).min()
    }

    /// The connection is the one to be used with its peer: start to send.
    pub fn confirm(&mut self, now: Time) {
        self.confirmed = true;
        self.each(now, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.confirm(now),
            Forwarder::Native(link) => link.confirm(now),
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
                link.handle_control(now, sleeve::link::Control::decode(tag, content)?);
            }
            Some(Forwarder::Native(link)) => {
                link.handle_control(now, native::link::Control::decode(tag, content)?)?;
            }
            None => return Ok(()),
        }
        self.collect(now);
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
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_special(now, from, special),
            Forwarder::Native(_) => {}
        });
    }

    /// A report arrived over a native link, in a datagram of `bytes` bytes that opened under the
    /// key of `epoch`.
    pub fn handle_report(
        &mut self,
        now: Time,
        link: LinkId,
        epoch: u32,
        report: Report,
        bytes: usize,
    ) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Native(link) => link.handle_report(now, epoch, report, bytes),
            Forwarder::Sleeve(_) => {}
        });
    }

    /// The newest datagram of a native link came from another address than the one in use.
    pub fn handle_moved(&mut self, now: Time, link: LinkId, from: SocketAddrV4) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Native(link) => link.handle_moved(now, from),
            Forwarder::Sleeve(_) => {}
        });
    }

    /// The kernel refused a packet of a link since its path takes `path_mtu` bytes.
    pub fn handle_too_big(&mut self, now: Time, link: LinkId, path_mtu: usize) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_too_big(now, path_mtu),
            Forwarder::Native(link) => link.handle_too_big(now, path_mtu),
        });
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.each(now, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_timeout(now),
            Forwarder::Native(link) => link.handle_timeout(now),
        });
    }

    fn one(&mut self, now: Time, link: LinkId, act: impl FnOnce(&mut Forwarder)) {
        let slot = self.slots.iter_mut().find(|slot| slot.link == link);
        if let Some(forwarder) = slot.and_then(|slot| slot.forwarder.as_mut()) {
            act(forwarder);
        }
        self.collect(now);
    }

    fn each(&mut self, now: Time, act: impl FnMut(&mut Forwarder)) {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.forwarder.as_mut())
            .for_each(act);
        self.collect(now);
    }

    /// Takes over what the forwarders want, and sees what that means for all of them.
    fn collect(&mut self, now: Time) {
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
        let is_over = |slot: &Slot| slot.hopeless_at().is_some_and(|at| at <= now);
        if self.slots.iter().all(is_over) && !self.broken {
            self.broken = true;
            self.outputs.push_back(SwitchOutput::Broken(self.epitaph()));
        }
    }

    fn epitaph(&self) -> String {
        let reasons: Vec<String> = self
            .slots
            .iter()
            .map(|slot| {
                let reason = match &slot.health {
                    Health::Failed(reason) | Health::OnHold(reason) => reason,
                    Health::Pending | Health::Established => "nothing came through over UDP",
                };
                format!("{}: {reason}", slot.overlay.name())
            })
            .collect();
        format!("no working forwarders to peer ({})", reasons.join("; "))
    }
}

/// The links to try for a frame: established ones before those that are not yet and these before
/// those on hold, each in the order of their indices.
fn preference<'a>(slots: impl Iterator<Item = (LinkId, &'a Health)> + Clone) -> Vec<LinkId> {
    let rank = |health: &Health| match health {
        Health::Established => Some(0),
        Health::Pending => Some(1),
        Health::OnHold(_) => Some(2),
        Health::Failed(_) => None,
    };
    let with = |wanted| {
        slots
            .clone()
            .filter(move |(_, health)| rank(health) == Some(wanted))
            .map(|(link, _)| link)
    };
    (0..3).flat_map(with).collect()
}

#[cfg(test)]
mod tests;
