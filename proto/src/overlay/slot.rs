//! One overlay of a connection.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::kind::Overlay;
use super::output::{Health, LinkAction, LinkOutput, SwitchOutput};
use super::params::Params;
use crate::message::OverlayMode;
use crate::native::keys::Binding;
use crate::native::{self, LinkConfig, LinkView};
use crate::sleeve::link::Path;
use crate::sleeve::{self, LinkId};
use crate::types::Time;

/// An overlay with its forwarder.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) overlay: Overlay,
    pub(super) link: LinkId,
    pub(super) health: Health,
    pub(super) forwarder: Option<Forwarder>,
    sealed: bool,
    /// Whether the peer fell silent on a link that is a reserve.
    silent: bool,
}

/// The state machine of one overlay.
#[derive(Debug)]
pub(super) enum Forwarder {
    Sleeve(Box<sleeve::link::Link>),
    Native(Box<native::link::Link>),
}

impl Slot {
    pub(super) fn prepare(overlay: Overlay, params: &mut Params, link: LinkId) -> Slot {
        let sealed = overlay == Overlay::Weft || params.sleeve_key().is_some();
        let forwarder = match params.remote {
            SocketAddr::V6(_) => Err("UDP needs IPv4"),
            SocketAddr::V4(_) if params.sealed_only && !sealed => {
                Err("frames would travel in the clear, which --require-encryption forbids")
            }
            SocketAddr::V4(remote) => {
                let remote = params.dialled.then_some(remote);
                Ok(match overlay {
                    Overlay::Sleeve => {
                        let link = sleeve::link::Link::new(params.uid, sealed, remote);
                        let link = match params.quiet {
                            true => link.as_reserve(),
                            false => link,
                        };
                        Forwarder::Sleeve(Box::new(link))
                    }
                    Overlay::Weft => {
                        let config = native_config(params, link, remote);
                        Forwarder::Native(Box::new(native::link::Link::new(config)))
                    }
                })
            }
        };
        let (forwarder, health) = match forwarder {
            Ok(forwarder) => (Some(forwarder), Health::Pending),
            Err(reason) => (None, Health::Failed(reason.to_owned())),
        };
        Slot {
            overlay,
            link,
            health,
            forwarder,
            sealed,
            silent: false,
        }
    }

    /// Returns true once after the peer fell silent on a link that is a reserve.
    pub(super) fn take_silence(&mut self) -> bool {
        std::mem::take(&mut self.silent)
    }

    pub(super) fn path(&self) -> Option<Path> {
        self.forwarder.as_ref().map(|forwarder| match forwarder {
            Forwarder::Sleeve(link) => link.path(),
            Forwarder::Native(link) => link.path(),
        })
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub(super) fn native_view(&self) -> Option<LinkView> {
        match &self.forwarder {
            Some(Forwarder::Native(link)) => Some(link.view()),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match &self.forwarder {
            Some(Forwarder::Sleeve(link)) => link.poll_timeout(),
            Some(Forwarder::Native(link)) => link.poll_timeout(),
            None => None,
        }
    }

    /// Returns when this link stops keeping the connection alive; `None` while it is healthy.
    pub(super) fn hopeless_at(&self) -> Option<Time> {
        match &self.forwarder {
            Some(Forwarder::Sleeve(_)) => None,
            Some(Forwarder::Native(link)) => link.hopeless_at(),
            None => Some(Time::ZERO),
        }
    }

    /// Converts the forwarder's outputs into those of the switch. Returns true if it became
    /// established.
    pub(super) fn collect(
        &mut self,
        mode: OverlayMode,
        place: usize,
        to: &mut VecDeque<SwitchOutput>,
    ) -> bool {
        let was = self.health.clone();
        let failed = match &mut self.forwarder {
            Some(Forwarder::Sleeve(forwarder)) => {
                let slot = (self.link, &mut self.health, &mut self.silent);
                collect_sleeve(forwarder, slot, (mode, place), to)
            }
            Some(Forwarder::Native(forwarder)) => {
                collect_native(forwarder, (self.link, &mut self.health), (mode, place), to)
            }
            None => None,
        };
        let (link, overlay) = (self.link, self.overlay);
        if let Some(reason) = failed {
            self.health = Health::Failed(reason.clone());
            self.forwarder = None;
            to.push_back(SwitchOutput::LinkFailed {
                link,
                overlay,
                reason,
            });
        }
        match (&was, &self.health) {
            (Health::Established, Health::OnHold(reason)) => {
                let held = Some(reason.clone());
                to.push_back(SwitchOutput::Health { overlay, held });
            }
            (Health::OnHold(_), Health::Established) => {
                let held = None;
                to.push_back(SwitchOutput::Health { overlay, held });
            }
            _ => {}
        }
        was != self.health && self.health == Health::Established
    }
}

fn native_config(
    params: &mut Params,
    link: LinkId,
    remote: Option<std::net::SocketAddrV4>,
) -> LinkConfig {
    let (dialler, acceptor) = match params.dialled {
        true => (params.us, params.peer),
        false => (params.peer, params.us),
    };
    LinkConfig {
        id: link,
        peer: params.peer,
        dialled: params.dialled,
        binding: Binding {
            dialler,
            acceptor,
            uid: params.uid,
            transcript: params.transcript,
        },
        session_key: params.session_key.clone(),
        secret: params.secret.take(),
        ciphers: params.ciphers,
        numbers: params.numbers,
        key_life: params.key_life,
        remote,
    }
}

fn about(link: LinkId, what: LinkAction) -> SwitchOutput {
    SwitchOutput::Link(LinkOutput { link, what })
}

/// Converts the outputs of a sleeve link. Returns the reason if it failed.
fn collect_sleeve(
    forwarder: &mut sleeve::link::Link,
    (link, health, silent): (LinkId, &mut Health, &mut bool),
    (mode, place): (OverlayMode, usize),
    to: &mut VecDeque<SwitchOutput>,
) -> Option<String> {
    use sleeve::link::LinkOutput as Wanted;
    while let Some(output) = forwarder.poll_output() {
        to.push_back(match output {
            Wanted::Special(special) => about(link, LinkAction::Special(special)),
            Wanted::Control(control) => {
                let content = control.content();
                let Some(message) = mode.control(place, control.tag(), &content) else {
                    continue;
                };
                SwitchOutput::Message(message.encode())
            }
            Wanted::PathChanged => about(link, LinkAction::Path(forwarder.path())),
            Wanted::Moved { from, to } => SwitchOutput::Moved { link, from, to },
            Wanted::Established => {
                *health = Health::Established;
                continue;
            }
            Wanted::Silent => {
                *silent = true;
                *health = Health::Pending;
                continue;
            }
            Wanted::Failed(error) => return Some(error.to_string()),
        });
    }
    None
}

/// Converts the outputs of a native link. Returns the reason if it failed.
fn collect_native(
    forwarder: &mut native::link::Link,
    (link, health): (LinkId, &mut Health),
    (mode, place): (OverlayMode, usize),
    to: &mut VecDeque<SwitchOutput>,
) -> Option<String> {
    use native::link::LinkOutput as Wanted;
    while let Some(output) = forwarder.poll_output() {
        to.push_back(match output {
            Wanted::Report { report, bytes } => about(link, LinkAction::Report(report, bytes)),
            Wanted::Control(control) => {
                let message = mode.control(place, control.tag(), control.content());
                let Some(message) = message else {
                    continue;
                };
                SwitchOutput::Message(message.encode())
            }
            Wanted::NeedSecret => about(link, LinkAction::NeedSecret),
            Wanted::KeysChanged => about(link, LinkAction::Keys(forwarder.keys())),
            Wanted::PathChanged => about(link, LinkAction::Path(forwarder.path())),
            Wanted::Moved { from, to } => SwitchOutput::Moved { link, from, to },
            Wanted::Established => {
                *health = Health::Established;
                continue;
            }
            Wanted::Held(reason) => {
                *health = Health::OnHold(reason.to_owned());
                continue;
            }
            Wanted::Failed(reason) => return Some(reason),
        });
    }
    None
}
