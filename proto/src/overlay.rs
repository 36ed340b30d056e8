//! The overlays of one connection: which were agreed on, and which one carries frames.
//!
//! Both ends offer names of overlays. Each name offered by both gets an index and a forwarder. A
//! forwarder is prepared when the connection is introduced, started when the connection has won
//! over duplicates, and communicates with the other end by control messages:
//!
//! ```text
//! switched   7 | index | tag | content        both ends offered overlays
//! legacy     tag (1, 2, 3) | content          the other end offered none: sleeve alone
//! ```
//!
//! Frames go to the first established forwarder, or to the first working one if none is
//! established. A forwarder on hold is skipped until it recovers; one that failed never recovers. A
//! connection lives as long as one of its forwarders may still carry frames.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use self::reserve::{Change, Native, Reserve};
use self::slot::{Forwarder, Slot};
use crate::crypto::Secret;
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
mod reserve;
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

/// Returns the common names in the order of our own list, which gives each its index.
///
/// At most [`OVERLAYS_MAX`] are used.
///
/// Rule: `docs/protocol/sleeve.md#1-1-agreement`.
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

/// A control message that no forwarder understands. Must be ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRejected {
    /// There is no forwarder at this index.
    #[error("no forwarder in place {0}")]
    NoSuchForwarder(usize),
    /// Unknown to sleeve.
    #[error(transparent)]
    Sleeve(#[from] crate::sleeve::link::ControlError),
    /// Unknown to the native overlay, or not acceptable now.
    #[error(transparent)]
    Native(#[from] crate::native::link::ControlError),
}

/// The forwarders of one connection.
#[derive(Debug)]
pub struct OverlaySwitch {
    mode: OverlayMode,
    slots: Vec<Slot>,
    order: Vec<LinkId>,
    /// Sleeve, if it waits until the native overlay does not do.
    reserve: Option<Reserve>,
    established: bool,
    confirmed: bool,
    broken: bool,
    outputs: VecDeque<SwitchOutput>,
}

impl OverlaySwitch {
    /// Agrees on overlays with the other end, whose feature is `theirs`, and prepares a forwarder
    /// for each. `link_id` returns a new id for each.
    ///
    /// Rule: `docs/protocol/sleeve.md#1-1-agreement`.
    pub fn prepare(
        ours: &[Overlay],
        theirs: Option<&[String]>,
        mut params: Params,
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
        let slots: Vec<Slot> = ours
            .iter()
            .filter(|overlay| agreed.contains(&overlay.name()))
            .map(|overlay| Slot::prepare(*overlay, &mut params, link_id()))
            .collect();
        let has = |overlay| {
            let mut slots = slots.iter();
            slots.any(|slot| slot.overlay == overlay && slot.forwarder.is_some())
        };
        let is_reserve = params.quiet && has(Overlay::Weft) && has(Overlay::Sleeve);
        Ok(OverlaySwitch {
            mode,
            slots,
            reserve: is_reserve.then(|| Reserve::new(params.uid)),
            order: Vec::new(),
            established: false,
            confirmed: false,
            broken: false,
            outputs: VecDeque::new(),
        })
    }

    /// Returns the forwarders in the order of their indices.
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

    /// Returns the forwarder that currently carries frames.
    pub fn active(&self) -> Option<ForwarderView> {
        let first = *self.order.first()?;
        self.forwarders().find(|view| view.link == first)
    }

    /// Returns true if a forwarder was established.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Returns how control messages are encoded.
    pub fn mode(&self) -> OverlayMode {
        self.mode
    }

    /// Returns what to do next, in order, until `None`. Any call that takes `now` may add outputs.
    pub fn poll_output(&mut self) -> Option<SwitchOutput> {
        self.outputs.pop_front()
    }

    /// Returns the time at which `handle_timeout` is due. Any call that takes `now` may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let slots = self.slots.iter();
        let timeouts = slots.clone().filter_map(Slot::poll_timeout);
        let reserve = self.reserve.as_ref().and_then(Reserve::poll_timeout);
        // No forwarder is given up as long as one of them can keep the connection alive.
        let hopeless = slots.map(|slot| self.hopeless_at(slot));
        let hopeless = match hopeless.collect::<Option<Vec<Time>>>() {
            Some(times) if !self.broken => times.into_iter().max(),
            _ => None,
        };
        timeouts.chain(reserve).chain(hopeless).min()
    }

    /// Reports that the connection has become a member and is used with its peer: starts to send.
    pub fn confirm(&mut self, now: Time) {
        self.confirmed = true;
        let has_reserve = self.reserve.is_some();
        if let Some(reserve) = &mut self.reserve {
            reserve.confirm(now);
        }
        self.each(now, |forwarder| match forwarder {
            Forwarder::Sleeve(_) if has_reserve => {}
            Forwarder::Sleeve(link) => link.confirm(now),
            Forwarder::Native(link) => link.confirm(now),
        });
    }

    /// Handles a control message for the forwarder at index `place`.
    ///
    /// Rule: `docs/protocol/sleeve.md#1-2-control-messages`.
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

    /// Handles an authentic special frame that arrived over a link from this address.
    pub fn handle_special(
        &mut self,
        now: Time,
        link: LinkId,
        from: SocketAddrV4,
        special: Special,
    ) {
        let is_sleeve = |slot: &Slot| slot.link == link && slot.overlay == Overlay::Sleeve;
        if self.confirmed
            && self.slots.iter().any(is_sleeve)
            && let Some(reserve) = &mut self.reserve
            && let Some(change) = reserve.hear(now, special)
        {
            self.change_sleeve(now, change);
        }
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_special(now, from, special),
            Forwarder::Native(_) => {}
        });
    }

    /// Handles a report that arrived over a native link, in a datagram of `bytes` bytes under the
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

    /// The peer said whether it sends frames over sleeve.
    pub fn handle_uses_sleeve(&mut self, now: Time, uses: bool) {
        self.each(now, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.set_open(uses),
            Forwarder::Native(_) => {}
        });
    }

    /// Returns true unless all frames go over an overlay that is not sleeve and works.
    pub fn uses_sleeve(&self) -> bool {
        let first = self.order.first();
        let slot = self.slots.iter().find(|slot| Some(&slot.link) == first);
        slot.is_none_or(|slot| {
            slot.overlay == Overlay::Sleeve || slot.health != Health::Established
        })
    }

    /// Random bytes that a native link asked for.
    pub fn handle_secret(&mut self, now: Time, link: LinkId, secret: Secret) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Native(link) => link.handle_secret(now, secret),
            Forwarder::Sleeve(_) => {}
        });
    }

    /// Reports that the newest datagram of a native link came from another address than the one in
    /// use.
    pub fn handle_moved(&mut self, now: Time, link: LinkId, from: SocketAddrV4) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Native(link) => link.handle_moved(now, from),
            Forwarder::Sleeve(_) => {}
        });
    }

    /// Reports that the kernel refused a packet of a link because its path carries only `path_mtu`
    /// bytes.
    pub fn handle_too_big(&mut self, now: Time, link: LinkId, path_mtu: usize) {
        self.one(now, link, |forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.handle_too_big(now, path_mtu),
            Forwarder::Native(link) => link.handle_too_big(now, path_mtu),
        });
    }

    /// Does what is due at `now`.
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

    /// Collects the outputs of the forwarders and derives what follows for the connection.
    ///
    /// Rule: `docs/protocol/sleeve.md#1-3-forwarders`.
    fn collect(&mut self, now: Time) {
        let mut rising = self.gather();
        if let Some(change) = self.review_reserve(now) {
            self.change_sleeve(now, change);
            rising |= self.gather();
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
        let is_over = |slot: &Slot| self.hopeless_at(slot).is_some_and(|at| at <= now);
        if self.slots.iter().all(is_over) && !self.broken {
            self.broken = true;
            self.outputs.push_back(SwitchOutput::Broken(self.epitaph()));
        }
    }

    /// Takes the outputs of all forwarders. Returns true if one became established.
    fn gather(&mut self) -> bool {
        let mut rising = false;
        for (place, slot) in self.slots.iter_mut().enumerate() {
            rising |= slot.collect(self.mode, place, &mut self.outputs);
        }
        rising
    }

    /// From when on a forwarder keeps no connection alive, if nothing changes.
    fn hopeless_at(&self, slot: &Slot) -> Option<Time> {
        match (&slot.forwarder, &self.reserve) {
            (Some(Forwarder::Sleeve(_)), Some(reserve)) if slot.health != Health::Established => {
                Some(reserve.hopeless_at())
            }
            _ => slot.hopeless_at(),
        }
    }

    /// Returns what is to be done with sleeve, if it is a reserve.
    fn review_reserve(&mut self, now: Time) -> Option<Change> {
        if !self.confirmed {
            return None;
        }
        let reserve = self.reserve.as_mut()?;
        let native = self.slots.iter().find(|slot| slot.overlay == Overlay::Weft);
        let native = match native.map(|slot| &slot.health) {
            Some(Health::Established) => Native::Well,
            Some(Health::Pending) => Native::Pending,
            Some(Health::OnHold(_) | Health::Failed(_)) | None => Native::Ill,
        };
        let is_silent = self.slots.iter_mut().any(|slot| slot.take_silence());
        if is_silent && let Some(change) = reserve.handle_silence(native) {
            return Some(change);
        }
        reserve.review(now, native)
    }

    fn change_sleeve(&mut self, now: Time, change: Change) {
        let sleeve = self.slots.iter_mut();
        for slot in sleeve {
            if let Some(Forwarder::Sleeve(link)) = &mut slot.forwarder {
                match change {
                    Change::Warm => link.confirm(now),
                    Change::Cool => {
                        link.leave();
                        slot.health = Health::Pending;
                    }
                }
            }
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

/// Returns the links to try for a frame: established ones, then pending ones, then those on hold,
/// each in the order of their indices.
///
/// Rule: `docs/protocol/sleeve.md#1-3-forwarders`.
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
