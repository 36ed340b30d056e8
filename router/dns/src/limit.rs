//! Limits on what may be in flight at once, in total and per client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Hands out slots. A client that takes all it may have leaves room for the others.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    all: usize,
    per_client: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// No count is zero.
    per_client: BTreeMap<IpAddr, usize>,
}

impl Limit {
    pub(super) fn new(all: usize, per_client: usize) -> Limit {
        Limit {
            all,
            per_client,
            taken: Arc::default(),
        }
    }

    /// Returns a slot for something that `client` wants, if there is one.
    pub(super) fn admit(&self, client: IpAddr) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.all {
            return None;
        }
        let count = taken.per_client.entry(client).or_default();
        if *count >= self.per_client {
            return None;
        }
        *count += 1;
        taken.all += 1;
        Some(Slot {
            taken: self.taken.clone(),
            client,
        })
    }
}

/// Permission for one thing, until dropped.
#[derive(Debug)]
pub(super) struct Slot {
    taken: Arc<Mutex<Taken>>,
    client: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.per_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.per_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let limit = Limit::new(3, 2);
        let clients = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let first = limit.admit(clients[0]).unwrap();
        let _second = limit.admit(clients[0]).unwrap();
        assert!(limit.admit(clients[0]).is_none());
        let _third = limit.admit(clients[1]).unwrap();
        assert!(limit.admit(clients[1]).is_none(), "all are taken");
        drop(first);
        assert!(limit.admit(clients[1]).is_some());
        assert_eq!(limit.taken.lock().unwrap().per_client.len(), 2);
    }
}
