//! The typed way to the control loop: one method a request.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ipam::allocator::{self, Response};
use proto::types::PeerName;
use tokio::sync::{Notify, mpsc, oneshot};

use super::errors::{ConnectError, NamesError, RequestError, Stopped};
use super::names::SavedName;
use super::request::{ContainerEvent, NameFilter, Reply, Request};
use super::view::{Ranges, View};
use boundary::records::StoreError;

/// Requests that wait for the loop; whoever makes one more waits.
const REQUESTS_MAX: usize = 256;
/// Maximum time to wait for a view.
const VIEW_TIME_MAX: Duration = Duration::from_millis(100);

/// A handle of the loop.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    abandoned: Arc<Notify>,
    /// The last view that any client got.
    last_view: Arc<ArcSwapOption<View>>,
}

/// The receiving end of all clients' requests.
#[derive(Debug)]
pub struct Inbox {
    /// The requests.
    pub requests: mpsc::Receiver<Request>,
    /// Told when somebody who waited for an address has gone away.
    pub abandoned: Arc<Notify>,
}

impl Client {
    /// Creates a client, and where its requests come out.
    pub fn new() -> (Client, Inbox) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let abandoned = Arc::new(Notify::new());
        let client = Client {
            requests: sender,
            abandoned: Arc::clone(&abandoned),
            last_view: Arc::default(),
        };
        let inbox = Inbox {
            requests,
            abandoned,
        };
        (client, inbox)
    }

    /// Asks the allocator and waits for its answer. Dropping the future cancels the request.
    pub async fn address(
        &self,
        request: allocator::Request,
        time_max: Option<Duration>,
    ) -> Result<Response, RequestError> {
        let (reply, answer) = Reply::new();
        let mut waiting = Waiting {
            abandoned: &self.abandoned,
            answer: Some(answer),
        };
        let reply = Some(reply);
        self.send(Request::Address {
            request,
            time_max,
            reply,
        })
        .await?;
        waiting.answer().await?
    }

    /// Hands the allocator a request whose answer nobody needs.
    pub async fn tell_allocator(&self, request: allocator::Request) -> Result<(), Stopped> {
        self.send(Request::Address {
            request,
            time_max: None,
            reply: None,
        })
        .await
    }

    /// Tells what happened to a container.
    pub async fn container(&self, id: &str, event: ContainerEvent) -> Result<(), Stopped> {
        let id = id.to_owned();
        self.send(Request::Container { id, event }).await
    }

    /// Registers names of a container for one of its addresses, and tells the mesh. Each name is
    /// relative to the domain or fully qualified. Names that are refused are in the error; the
    /// others are registered all the same.
    pub async fn register_names(
        &self,
        container: &str,
        address: Ipv4Addr,
        names: Vec<String>,
    ) -> Result<(), NamesError> {
        let container = container.to_owned();
        self.ask(|reply| Request::RegisterNames {
            container,
            address,
            names,
            reply,
        })
        .await?
    }

    /// Removes those of our names that match, and tells the mesh. Returns how many.
    pub async fn remove_names(&self, filter: NameFilter) -> Result<usize, NamesError> {
        self.ask(|reply| Request::RemoveNames { filter, reply })
            .await?
    }

    /// Removes all names that a container has here, or those of one of its addresses. Returns
    /// how many.
    pub async fn unregister_names(
        &self,
        container: &str,
        address: Option<Ipv4Addr>,
    ) -> Result<usize, NamesError> {
        self.remove_names(NameFilter {
            container: Some(container.to_owned()),
            address,
            ..NameFilter::default()
        })
        .await
    }

    /// Forgets names that the store has and nobody registered again.
    pub async fn forget_saved_names(&self, names: Vec<SavedName>) -> Result<(), Stopped> {
        self.send(Request::ForgetSavedNames(names)).await
    }

    /// Names peers to be connected to, each as `HOST[:PORT]`, and waits until they are resolved.
    /// Those that cannot be are in the error; the others are connected to. With `replace` all that
    /// were named before are forgotten.
    pub async fn connect(&self, peers: Vec<String>, replace: bool) -> Result<(), ConnectError> {
        self.ask(|reply| Request::Connect {
            peers,
            replace,
            reply,
        })
        .await?
    }

    /// Names peers to be connected to, which are resolved for as long as it takes.
    pub async fn connect_in_background(&self, peers: Vec<String>) -> Result<(), Stopped> {
        self.send(Request::ConnectInBackground(peers)).await
    }

    /// Forgets peers, by the texts that named them.
    pub async fn forget(&self, peers: Vec<String>) -> Result<(), Stopped> {
        self.ask(|reply| Request::Forget { peers, reply }).await
    }

    /// Saves a record and waits until it is on disk. A revision that is older than one handed in
    /// before is not saved, and no failure.
    pub async fn save_record(
        &self,
        key: &[u8],
        value: Vec<u8>,
        revision: u64,
    ) -> Result<(), StoreError> {
        let key = key.to_vec();
        let saved = self.ask(|reply| Request::SaveRecord {
            key,
            value,
            revision,
            reply,
        });
        saved.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Sends gossip to one peer. Returns true if there is a way to it.
    pub async fn send_gossip(
        &self,
        topic: &'static str,
        to: PeerName,
        payload: Vec<u8>,
    ) -> Result<bool, Stopped> {
        self.ask(|reply| Request::SendGossip {
            topic,
            to,
            payload,
            reply,
        })
        .await
    }

    /// Returns a copy of everything that others may read, with all that this caller has done
    /// before. A loop that is too busy to make one for 100 ms is not waited for: then it is the
    /// last one that any client got, and [`View::wall`] says how old.
    ///
    /// [`View::wall`]: field@View::wall
    pub async fn view(&self) -> Result<Arc<View>, Stopped> {
        match tokio::time::timeout(VIEW_TIME_MAX, self.ask(Request::View)).await {
            Ok(Ok(view)) => {
                self.last_view.store(Some(Arc::clone(&view)));
                Ok(view)
            }
            Ok(Err(stopped)) => Err(stopped),
            Err(_) => self.last_view.load_full().ok_or(Stopped),
        }
    }

    /// Waits for the first view, so that all later ones come in time.
    pub async fn first_view(&self) -> Result<Arc<View>, Stopped> {
        let view = self.ask(Request::View).await?;
        self.last_view.store(Some(Arc::clone(&view)));
        Ok(view)
    }

    /// Returns the ranges that addresses come from; `None` if they are not allocated.
    pub async fn ranges(&self) -> Result<Option<Ranges>, Stopped> {
        self.ask(Request::Ranges).await
    }

    /// Returns the containers that have names here.
    pub async fn named_containers(&self) -> Result<BTreeSet<String>, Stopped> {
        self.ask(Request::NamedContainers).await
    }

    /// Ends the loop, and with it the router.
    pub async fn stop(&self) -> Result<(), Stopped> {
        self.ask(Request::Stop).await
    }

    async fn send(&self, request: Request) -> Result<(), Stopped> {
        self.requests.send(request).await.map_err(|_| Stopped)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Stopped> {
        let (reply, answer) = Reply::new();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

/// A caller who waits for an address; it tells the loop if it gives up before the answer.
struct Waiting<'a> {
    abandoned: &'a Notify,
    answer: Option<oneshot::Receiver<Result<Response, RequestError>>>,
}

impl Waiting<'_> {
    async fn answer(&mut self) -> Result<Result<Response, RequestError>, Stopped> {
        let Some(answer) = &mut self.answer else {
            return Err(Stopped);
        };
        let received = answer.await;
        self.answer = None;
        received.map_err(|_| Stopped)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Closed first, so that the loop finds it abandoned when it looks.
        if self.answer.take().is_some() {
            self.abandoned.notify_one();
        }
    }
}
