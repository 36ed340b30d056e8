//! Changes of a lease: pinning and ending it, here or at its holder.

use std::sync::Arc;

use super::super::api::{RequestError, Response};
use super::super::cx::Cx;
use super::super::progress::{ASK_AGAIN, Progress};
use super::super::questions::lease::LeaseAsked;
use crate::leases::wire::{AskKind, Outcome};
use crate::leases::{Lease, LeaseKey};

/// A request to pin or end a lease.
#[derive(Debug)]
pub(crate) struct LeaseChange {
    pub(crate) key: LeaseKey,
    pub(crate) kind: AskKind,
    pub(crate) force: bool,
}

impl LeaseChange {
    pub(crate) fn advance(&mut self, cx: &mut Cx) -> Progress {
        let key = cx.durable.leases().shared(&self.key);
        let Some(lease) = cx.durable.leases().live(&key).cloned() else {
            // Another router may just have ended it, as requested.
            let ended = self.kind == AskKind::Release && cx.durable.leases().get(&key).is_some();
            let error = RequestError::NoLease(key.to_string());
            return Progress::Done(if ended {
                Ok(Response::Done)
            } else {
                Err(error)
            });
        };
        if lease.holder == cx.durable.us() {
            return Progress::Done(self.change_own_lease(cx, &key, &lease));
        }
        let entry = (Arc::clone(&key), lease.clone());
        let (why, wake) = match cx.ask_lease(lease.holder, self.kind, entry) {
            LeaseAsked::Answered(Outcome::Done, _) => {
                return Progress::Done(Ok(Response::Done));
            }
            LeaseAsked::Answered(Outcome::InUse, _) => {
                return Progress::Done(Err(cx.in_use_error(&key, &lease)));
            }
            LeaseAsked::Answered(_, at) => ("cannot do it at the moment", at),
            LeaseAsked::Waiting(at) => ("does not answer", at),
            LeaseAsked::Unreachable if self.force && self.kind == AskKind::Release => {
                cx.end_lease(&key, &lease, "it was released by force");
                return Progress::Done(Ok(Response::Done));
            }
            LeaseAsked::Unreachable => ("cannot be reached", cx.clock.now + ASK_AGAIN),
        };
        Progress::Wait(cx.waiting_for_holder(&key, &lease, why), wake)
    }

    fn change_own_lease(
        &self,
        cx: &mut Cx,
        key: &Arc<LeaseKey>,
        lease: &Lease,
    ) -> Result<Response, RequestError> {
        match self.kind {
            AskKind::Pin | AskKind::Unpin => {
                cx.pin(key, lease, self.kind == AskKind::Pin);
            }
            _ if lease.is_unused() => cx.end_lease(key, lease, "it was released"),
            _ => return Err(cx.in_use_error(key, lease)),
        }
        Ok(Response::Done)
    }
}
