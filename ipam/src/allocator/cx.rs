//! The context in which operations and machines work during a step.
//!
//! Their outputs are kept here until the step ends. Only the allocator takes them, and releases
//! them once the changes of the step are stored.

use std::collections::VecDeque;

use proto::types::PeerName;

use super::api::{Alarm, Channel, Clock, Config, Event, Output};
use super::durable::Durable;
use super::effects::Effect;
use super::hosted::Hosted;
use super::members::Members;
use super::notices::Notices;
use super::questions::Questions;
use super::rations::Rations;
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
    pub(super) rations: Rations,
    /// Whether all that was decided before this step is stored.
    pub(super) settled: bool,
    /// Our part in the election, which is sent with every message about the ring while there is
    /// none; `None` for an observer, and once there is a ring.
    pub(super) elector: Option<Elector>,
    out: Vec<Output>,
    effects: VecDeque<Effect>,
    /// Whether something changed that may let waiting requests continue.
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
            rations: Rations::default(),
            settled: true,
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

    /// Returns the universe.
    pub(super) fn universe(&self) -> Cidr {
        self.durable.meta().universe
    }

    /// Returns the subnet of requests that name none.
    pub(super) fn default_subnet(&self) -> Cidr {
        self.config.default_subnet.unwrap_or(self.universe())
    }

    /// Tries waiting requests again before the step ends.
    pub(super) fn try_again(&mut self) {
        self.retry = true;
    }

    pub(super) fn take_retry(&mut self) -> bool {
        std::mem::take(&mut self.retry)
    }

    /// Records an effect, on which other parts act.
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

    /// Raises an alarm, unless it is raised already.
    pub(super) fn alarm(&mut self, alarm: Alarm) {
        if self.notices.raise(&alarm) {
            self.emit(Output::Alarm(alarm));
        }
    }

    /// Reports an invalid message; each kind of error of each peer once.
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
