//! The keys of one link and their replacement by those of the next epoch, without losing frames.
//!
//! ```text
//! dialler   hello n -->                     <-- hello n     sends and receives under n
//! acceptor           makes keys, receives under n -->       sends under n once n was used
//! ```
//!
//! Both ends begin the first epoch at once; the dialler begins later ones, so that hellos never
//! cross. The answering end can receive under the new key before its hello leaves, the dialler when
//! that hello arrives. The previous key is kept for a while for datagrams that are on their way.

use std::sync::Arc;
use std::time::Duration;

use x25519_dalek::{PublicKey, StaticSecret};

use super::keys::{Binding, Chain, Exchange, Hello, KeysError, VERSION};
use super::seal::Ciphers;
use super::session_config::{ControlError, KEY_LINGER, KeyLife, Keys, LinkConfig, SessionNumbers};
use super::tunnel::{Receiving, Sending};
use crate::crypto::Secret;
use crate::sleeve::LinkId;
use crate::types::{PeerName, Time};

/// Interval between requests for another key: by its own clock, the other end may find a request
/// too early.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
///
/// Rule: `docs/native.md#keys`.
pub(super) struct Keyring {
    id: LinkId,
    peer: PeerName,
    dialled: bool,
    binding: Binding,
    ciphers: Ciphers,
    numbers: SessionNumbers,
    life: KeyLife,
    /// What the next key pair is made of.
    secret: Option<Secret>,
    chain: Chain,
    /// The epoch whose hellos are exchanged next.
    next_epoch: u32,
    /// Our hello of that epoch, once it was sent.
    offer: Option<Offer>,
    send: Option<Arc<Sending>>,
    /// A key that the peer has not used yet, under which it may not be able to receive.
    send_next: Option<Arc<Sending>>,
    receive: Vec<Kept>,
    keyed_at: Time,
    asked_at: Option<Time>,
    /// Datagrams sent and received under discarded keys.
    sent_before: u64,
    frames_before: u64,
    received_before: u64,
}

struct Offer {
    hello: Hello,
    bytes: Vec<u8>,
    private: StaticSecret,
}

/// A key to receive under, and when to forget it.
struct Kept {
    key: Arc<Receiving>,
    until: Option<Time>,
}

/// What to do about keys that reach their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rekey {
    /// Begin the next epoch.
    Begin,
    /// Ask the other end to.
    Ask,
}

impl Keyring {
    pub(super) fn new(config: LinkConfig) -> Keyring {
        Keyring {
            id: config.id,
            peer: config.peer,
            dialled: config.dialled,
            binding: config.binding,
            ciphers: config.ciphers,
            numbers: config.numbers,
            life: config.key_life,
            secret: config.secret,
            chain: Chain::new(config.session_key.as_ref()),
            next_epoch: 0,
            offer: None,
            send: None,
            send_next: None,
            receive: Vec::new(),
            keyed_at: Time::ZERO,
            asked_at: None,
            sent_before: 0,
            frames_before: 0,
            received_before: 0,
        }
    }

    /// Returns true if fresh random bytes are needed before this end can speak for the next epoch.
    pub(super) fn needs_secret(&self) -> bool {
        self.offer.is_none() && self.secret.is_none()
    }

    /// Takes fresh random bytes for the next key pair.
    pub(super) fn give(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    /// Returns the keys in use.
    pub(super) fn keys(&self) -> Keys {
        Keys {
            send: self.send.clone(),
            receive: self.receive.iter().map(|kept| kept.key.clone()).collect(),
        }
    }

    /// Returns the key under which to send.
    pub(super) fn send(&self) -> Option<&Sending> {
        self.send.as_deref()
    }

    /// Returns the epoch of the newest keys; 0 without any.
    pub(super) fn epoch(&self) -> u32 {
        self.next_epoch.saturating_sub(1)
    }

    /// Datagrams sent so far.
    pub(super) fn sent(&self) -> u64 {
        let current = self.send.as_ref().map_or(0, |key| key.datagrams());
        self.sent_before + current
    }

    /// Datagrams with frames that were sent so far.
    pub(super) fn frames_sent(&self) -> u64 {
        let current = self.send.as_ref().map_or(0, |key| key.frames());
        self.frames_before + current
    }

    /// Datagrams received so far.
    pub(super) fn received(&self) -> u64 {
        let current = self.receive.iter().map(|kept| kept.key.datagrams());
        self.received_before + current.sum::<u64>()
    }

    /// Returns when `forget` is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.receive.iter().filter_map(|kept| kept.until).min()
    }

    /// Checks that this hello is the expected one.
    pub(super) fn expect(&self, now: Time, hello: &Hello) -> Result<(), ControlError> {
        let unasked = self.next_epoch > 0 && self.dialled && self.offer.is_none();
        if hello.epoch != self.next_epoch || unasked {
            return Err(ControlError::Epoch {
                got: hello.epoch,
                wanted: self.next_epoch,
            });
        }
        // By the dialler's clock, a whole [`LINGER`] has passed since the previous hellos.
        if hello.epoch > 0 && !self.dialled && now < self.keyed_at + KEY_LINGER / 2 {
            return Err(ControlError::Hasty);
        }
        Ok(())
    }

    /// Begins the next epoch and returns the hello to send.
    pub(super) fn begin(&mut self) -> Result<Vec<u8>, KeysError> {
        let offer = self.make_offer()?;
        let bytes = offer.bytes.clone();
        self.offer = Some(offer);
        Ok(bytes)
    }

    /// Handles the peer's hello of the next epoch, which changes the keys. If this end has not sent
    /// its hello yet, returns it; send it once the keys are in place.
    pub(super) fn take(
        &mut self,
        now: Time,
        bytes: &[u8],
        theirs: &Hello,
    ) -> Result<Option<Vec<u8>>, KeysError> {
        let (offer, is_answer) = match self.offer.take() {
            Some(offer) => (offer, false),
            None => (self.make_offer()?, true),
        };
        let exchange = Exchange {
            binding: &self.binding,
            dialled: self.dialled,
            private: &offer.private,
            our_hello: &offer.bytes,
            their_hello: bytes,
        };
        let keys = exchange.keys(&offer.hello, theirs, &self.chain)?;
        let epoch = self.next_epoch;
        self.next_epoch = epoch + 1;
        self.chain = keys.chain;
        self.keyed_at = now;
        self.asked_at = None;
        self.drop_keys(|kept| kept.key.epoch() + 1 < epoch);
        let session = offer.hello.session;
        let receiving = Receiving::new((self.id, self.peer), epoch, session, keys.receive);
        self.receive.push(Kept {
            key: Arc::new(receiving),
            until: None,
        });
        let sending = Arc::new(Sending::new(epoch, theirs.session, keys.send));
        if is_answer {
            self.send_next = Some(sending);
            return Ok(Some(offer.bytes));
        }
        self.replace_send(sending);
        Ok(None)
    }

    /// Reports that the peer used the key of `epoch`. Returns true if keys changed.
    pub(super) fn note_used(&mut self, now: Time, epoch: u32) -> bool {
        for kept in &mut self.receive {
            if kept.key.epoch() < epoch {
                kept.until.get_or_insert(now + KEY_LINGER);
            }
        }
        let next = self.send_next.take_if(|next| next.epoch() == epoch);
        let is_changed = next.is_some();
        next.into_iter().for_each(|next| self.replace_send(next));
        is_changed
    }

    /// Discards expired keys. Returns true if keys changed.
    pub(super) fn forget(&mut self, now: Time) -> bool {
        self.drop_keys(|kept| kept.until.is_some_and(|until| until <= now))
    }

    /// Returns what to do about keys that reach their limits, if anything.
    pub(super) fn consider(&mut self, now: Time) -> Option<Rekey> {
        let send = self.send.as_ref()?;
        let is_worn = send.is_worn(self.life.datagrams) || self.keyed_at + self.life.time <= now;
        let is_rested = self.keyed_at + KEY_LINGER <= now;
        if !is_worn || !is_rested || self.offer.is_some() || self.send_next.is_some() {
            return None;
        }
        if self.dialled {
            return Some(Rekey::Begin);
        }
        if self.asked_at.is_some_and(|at| now < at + ASK_INTERVAL) {
            return None;
        }
        self.asked_at = Some(now);
        Some(Rekey::Ask)
    }

    /// Returns true if the peer may request the next epoch.
    pub(super) fn may_begin(&self, now: Time) -> bool {
        let is_rested = self.keyed_at + KEY_LINGER <= now;
        self.dialled && self.offer.is_none() && self.send.is_some() && is_rested
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.secret = None;
        self.offer = None;
        self.send = None;
        self.send_next = None;
        self.receive.clear();
    }

    fn make_offer(&mut self) -> Result<Offer, KeysError> {
        let secret = self.secret.take().ok_or(KeysError::NoSecret)?;
        let private = secret.static_secret();
        let hello = Hello {
            version: VERSION,
            ciphers: self.ciphers,
            epoch: self.next_epoch,
            session: self.numbers.number(self.id, self.next_epoch),
            public: PublicKey::from(&private).to_bytes(),
        };
        let bytes = hello.encode();
        Ok(Offer {
            hello,
            bytes,
            private,
        })
    }

    fn replace_send(&mut self, key: Arc<Sending>) {
        if let Some(old) = self.send.replace(key) {
            self.sent_before += old.datagrams();
            self.frames_before += old.frames();
        }
        self.send_next = None;
    }

    fn drop_keys(&mut self, is_old: impl Fn(&Kept) -> bool) -> bool {
        let before = self.receive.len();
        let gone = self.receive.iter().filter(|kept| is_old(kept));
        self.received_before += gone.map(|kept| kept.key.datagrams()).sum::<u64>();
        self.receive.retain(|kept| !is_old(kept));
        self.receive.len() != before
    }

    #[cfg(test)]
    pub(super) fn keyed_at(&self) -> Time {
        self.keyed_at
    }

    #[cfg(test)]
    pub(super) fn wear_out(&self) {
        if let Some(send) = &self.send {
            send.set_counter(0, super::tunnel::REKEY_DATAGRAMS);
        }
    }
}
