//! What an operation or machine may see and touch while a step is under way.
//!
//! What it puts out is kept here until the step is over: only the allocator takes it from here,
//! and lets it out when what the step changed is stored.

use std::collections::VecDeque;

use proto::types::PeerName;

use super::api::{Alarm, Channel, Clock, Config, Event, Output};
use super::durable::Durable;
use super::effects::Effect;
use super::hosted::Hosted;
use super::members::Members;
use super::notices::Notices;
use super::questions::Questions;
use crate::consensus::Elector;
use crate::range::Cidr;

/// The state that all parts of the allocator share, and the outputs of the step under way.
#[derive(Debug)]
pub(super) struct Cx {
    pub(super) clock: Clock,
    pub(super) config: Config,
    pub(super) rng: fastrand::Rng,
    pub(super) durable: Durable,
    pub(super) members: Members,
    pub(super) notices: Notices,
    pub(super) questions: Questions,
    pub(super) hosted: Hosted,
    /// Our part in the election, which goes with every message about the ring while there is
    /// none; `None` for an observer, and once there is a ring.
    pub(super) elector: Option<Elector>,
    out: Vec<Output>,
    effects: VecDeque<Effect>,
    /// Whether something changed that may let waiting requests go on.
    retry: bool,
}

impl Cx {
    pub(super) fn new(clock: Clock, config: Config, durable: Durable) -> Cx {
        Cx {
            rng: fastrand::Rng::with_seed(config.rng_seed),
            members: Members::new(config.name, &config.nickname, clock.now),
            notices: Notices::default(),
            questions: Questions::default(),
            hosted: Hosted::new(!config.await_found),
            elector: None,
            out: Vec::new(),
            effects: VecDeque::new(),
            retry: false,
            clock,
            config,
            durable,
        }
    }

    pub(super) fn us(&self) -> PeerName {
        self.durable.us()
    }

    /// All addresses that are allocated from.
    pub(super) fn universe(&self) -> Cidr {
        self.durable.meta().universe
    }

    /// The subnet of requests that name none.
    pub(super) fn default_subnet(&self) -> Cidr {
        self.config.default_subnet.unwrap_or(self.universe())
    }

    /// The requests that wait are to be tried again before the step ends.
    pub(super) fn try_again(&mut self) {
        self.retry = true;
    }

    pub(super) fn take_retry(&mut self) -> bool {
        std::mem::take(&mut self.retry)
    }

    /// Notes what other parts are to act on.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.out.push(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.emit(Output::Event(event));
    }

    /// Raises an alarm, unless it was raised before and lasts.
    pub(super) fn alarm(&mut self, alarm: Alarm) {
        if self.notices.raise(&alarm) {
            self.emit(Output::Alarm(alarm));
        }
    }

    /// Reports a message that is of no use; each kind of mistake of each peer once.
    pub(super) fn refuse(&mut self, from: PeerName, error: String) {
        if self.notices.refuse(from, &error) {
            self.event(Event::Refused { from, error });
        }
    }

    pub(super) fn unicast(&mut self, channel: Channel, to: PeerName, payload: Vec<u8>) {
        self.emit(Output::Unicast {
            channel,
            to,
            payload,
        });
    }
}
