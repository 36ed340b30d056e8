//! Each request of control: the good way, each port that can fail, and a caller who goes away.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::rig::{Host, Mesh, Services, TOPIC};
use boundary::records::StoreError;
use control::client::Client;
use control::control::{Input, TARGETS_KEY};
use control::errors::{ConnectError, NamesError, RequestError};
use control::names::SavedName;
use control::request::{ContainerEvent, NameFilter, Reply, Request};
use control::view::View;
use ipam::allocator::{self, Response};
use proto::names::AddError;
use proto::node::DeliveryKind;

type Given = Result<Response, RequestError>;

fn allocate(id: &str) -> allocator::Request {
    allocator::Request::Allocate {
        id: id.to_owned(),
        subnet: None,
        identity: None,
        container: true,
    }
}

fn address(
    request: allocator::Request,
    time_max: Option<Duration>,
) -> impl FnOnce(Reply<Given>) -> Request {
    move |reply| Request::Address {
        request,
        time_max,
        reply: Some(reply),
    }
}

fn lone(services: Services) -> Mesh {
    Mesh::new(1, services)
}

fn owned(host: &mut Host) -> usize {
    match host.answer(address(allocator::Request::List, None)) {
        Ok(Response::Owned(owned)) => owned.len(),
        other => panic!("{other:?}"),
    }
}

fn register(names: &[&str]) -> impl FnOnce(Reply<Result<(), NamesError>>) -> Request {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    move |reply| Request::RegisterNames {
        container: "c1".to_owned(),
        address: Ipv4Addr::new(10, 32, 0, 1),
        names,
        reply,
    }
}

fn connect(peers: &[String]) -> impl FnOnce(Reply<Result<(), ConnectError>>) -> Request {
    let peers = peers.to_vec();
    move |reply| Request::Connect {
        peers,
        replace: false,
        reply,
    }
}

#[test]
fn address_is_answered_once_it_is_saved() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.settle();
    host.memory.hold();
    let mut answer = host.ask(address(allocate("c1"), None));
    host.settle();
    assert!(
        answer.try_recv().is_err(),
        "nothing is given that is not saved"
    );
    host.memory.release();
    host.settle();
    let given = answer.try_recv().unwrap();
    assert!(matches!(given, Ok(Response::Address { .. })), "{given:?}");
    assert!(!host.memory.all().is_empty());
}

#[test]
fn address_is_refused_when_the_store_fails_and_given_when_it_works_again() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.settle();
    host.memory.set_broken(true);
    let given = host.answer(address(allocate("c1"), None));
    assert!(
        matches!(
            given,
            Err(RequestError::Refused(allocator::RequestError::Store(_)))
        ),
        "{given:?}"
    );
    host.memory.set_broken(false);
    let given = host.answer(address(allocate("c1"), None));
    assert!(matches!(given, Ok(Response::Address { .. })), "{given:?}");
}

#[test]
fn address_is_off_without_an_allocator() {
    let mut mesh = lone(Services::NONE);
    let given = mesh.hosts[0].answer(address(allocate("c1"), None));
    assert_eq!(given, Err(RequestError::Off));
    assert_eq!(mesh.hosts[0].answer(Request::Ranges), None);
}

/// Returns a router whose peer owns all free addresses and cannot be reached, so that requests
/// wait.
fn waiting() -> Mesh {
    let mut mesh = Mesh::new(2, Services::ALL);
    let pause = allocator::Request::Claim {
        id: "filler".to_owned(),
        cidr: "10.32.128.1/16".parse().unwrap(),
        identity: None,
        container: false,
        no_error_on_unknown: false,
        force: false,
    };
    // The upper half is the second peer's; nobody can say whether it gives this one.
    mesh.settle();
    let answer = mesh.hosts[0].ask(address(pause, None));
    mesh.settle();
    drop(answer);
    mesh
}

fn claim_elsewhere() -> allocator::Request {
    allocator::Request::Claim {
        id: "c2".to_owned(),
        cidr: "10.32.128.2/16".parse().unwrap(),
        identity: None,
        container: false,
        no_error_on_unknown: false,
        force: false,
    }
}

#[test]
fn address_ends_at_its_deadline() {
    let mut mesh = waiting();
    let limit = Some(Duration::from_secs(5));
    let mut answer = mesh.hosts[0].ask(address(claim_elsewhere(), limit));
    mesh.run(4);
    if let Ok(early) = answer.try_recv() {
        panic!("it waits: {early:?}");
    }
    mesh.run(2);
    let given = answer.try_recv().unwrap();
    assert!(
        matches!(
            given,
            Err(RequestError::Refused(allocator::RequestError::Deadline(_)))
        ),
        "{given:?}"
    );
}

#[test]
fn address_is_cancelled_when_its_caller_goes_away() {
    let mut mesh = waiting();
    let host = &mut mesh.hosts[0];
    let pending = |host: &mut Host| {
        let view = host.view();
        let addresses = view.addresses.as_ref().unwrap();
        let claims = &addresses.status.pending_claims;
        claims.iter().filter(|(id, ..)| id == "c2").count()
    };
    let answer = host.ask(address(claim_elsewhere(), None));
    host.settle();
    assert_eq!(pending(host), 1);
    drop(answer);
    host.control.turn(Input::CallersGone);
    host.settle();
    assert_eq!(pending(host), 0);
    // One that went before the loop got to it.
    let (reply, answer) = Reply::new();
    drop(answer);
    host.tell(address(claim_elsewhere(), None)(reply));
    host.settle();
    assert_eq!(pending(host), 0);
}

#[test]
fn address_without_a_reply_is_carried_out() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.tell(Request::Address {
        request: allocate("c1"),
        time_max: None,
        reply: None,
    });
    host.settle();
    assert_eq!(owned(host), 1);
}

#[tokio::test]
async fn a_dropped_client_call_cancels_its_request() {
    let (client, mut inbox) = Client::new();
    let call = tokio::time::timeout(
        Duration::from_millis(20),
        client.address(allocator::Request::List, None),
    );
    assert!(call.await.is_err(), "nobody answers");
    let Some(Request::Address {
        reply: Some(reply), ..
    }) = inbox.requests.recv().await
    else {
        panic!("a request was made");
    };
    assert!(reply.is_abandoned());
    // The loop is told, although it took the request only later.
    inbox.abandoned.notified().await;
    let answered = tokio::spawn(async move {
        client
            .address(allocator::Request::List, None)
            .await
            .unwrap()
    });
    let Some(Request::Address {
        reply: Some(reply), ..
    }) = inbox.requests.recv().await
    else {
        panic!("a request was made");
    };
    reply.send(Ok(Response::Done));
    assert_eq!(answered.await.unwrap(), Response::Done);
    let told = tokio::time::timeout(Duration::from_millis(20), inbox.abandoned.notified());
    assert!(told.await.is_err(), "an answered call is not given up");
}

#[test]
fn container_that_was_removed_loses_its_addresses() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.answer(address(allocate("c1"), None)).unwrap();
    for event in [ContainerEvent::Started, ContainerEvent::Destroyed] {
        let id = "c1".to_owned();
        host.tell(Request::Container { id, event });
    }
    host.settle();
    assert_eq!(owned(host), 0);
    // Without an allocator nobody cares.
    let id = "c1".to_owned();
    let event = ContainerEvent::Died;
    lone(Services::NONE).hosts[0].tell(Request::Container { id, event });
}

#[test]
fn container_that_died_keeps_its_addresses_for_a_while() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.answer(address(allocate("c1"), None)).unwrap();
    let (id, event) = ("c1".to_owned(), ContainerEvent::Died);
    host.tell(Request::Container { id, event });
    host.settle();
    assert_eq!(owned(host), 1);
    mesh.run(120);
    assert_eq!(owned(&mut mesh.hosts[0]), 0);
}

#[test]
fn names_are_registered_saved_and_removed() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    assert_eq!(host.answer(register(&["db", "x.example.com."])), {
        let refused = ("x.example.com.".to_owned(), AddError::OutsideDomain);
        Err(NamesError::Refused(vec![refused]))
    });
    let saved = |host: &Host| SavedName::all(&host.memory.all()).count();
    assert_eq!(saved(host), 1, "the good one is kept");
    let named: BTreeSet<String> = ["c1".to_owned()].into();
    assert_eq!(host.answer(Request::NamedContainers), named);
    assert_eq!(host.view().names.as_ref().unwrap().alive, 1);
    let filter = NameFilter {
        relative: vec!["db".to_owned()],
        ..NameFilter::default()
    };
    let removed = host.answer(|reply| Request::RemoveNames { filter, reply });
    assert_eq!((removed, saved(host)), (Ok(1), 0));
    assert!(host.answer(Request::NamedContainers).is_empty());
}

#[test]
fn names_are_registered_although_the_store_fails_or_the_caller_is_gone() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.memory.set_broken(true);
    assert_eq!(host.answer(register(&["db"])), Ok(()));
    assert_eq!(host.view().names.as_ref().unwrap().alive, 1);
    drop(host.ask(register(&["web"])));
    assert_eq!(host.view().names.as_ref().unwrap().alive, 2);
    let filter = NameFilter {
        container: Some("c1".to_owned()),
        ..NameFilter::default()
    };
    let removed = host.answer(|reply| Request::RemoveNames { filter, reply });
    assert_eq!(removed, Ok(2));
}

#[test]
fn names_can_be_off() {
    let mut mesh = lone(Services::NONE);
    let host = &mut mesh.hosts[0];
    assert_eq!(host.answer(register(&["db"])), Err(NamesError::Off));
    let filter = NameFilter::default();
    let removed = host.answer(|reply| Request::RemoveNames { filter, reply });
    assert_eq!(removed, Err(NamesError::Off));
    assert!(host.answer(Request::NamedContainers).is_empty());
}

#[test]
fn forget_saved_names_clears_the_store() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    host.answer(register(&["db"])).unwrap();
    let saved: Vec<SavedName> = SavedName::all(&host.memory.all()).collect();
    assert_eq!(saved.len(), 1);
    host.tell(Request::ForgetSavedNames(saved));
    assert_eq!(SavedName::all(&host.memory.all()).count(), 0);
}

#[test]
fn connect_resolves_dials_and_is_remembered() {
    let mut mesh = Mesh::new(2, Services::NONE);
    let there = mesh.hosts[1].address.to_string();
    assert_eq!(
        mesh.hosts[0].answer(connect(std::slice::from_ref(&there))),
        Ok(())
    );
    mesh.run(5);
    assert_eq!(mesh.hosts[0].view().mesh.peers.len(), 2);
    let kept = mesh.hosts[0].memory.get(TARGETS_KEY).unwrap();
    assert_eq!(kept, serde_json_text(&[&there]));
}

fn serde_json_text(texts: &[&str]) -> Vec<u8> {
    format!("[\"{}\"]", texts.join("\",\"")).into_bytes()
}

#[test]
fn connect_says_what_cannot_be_resolved_and_connects_to_the_others() {
    let mut mesh = Mesh::new(2, Services::NONE);
    let there = mesh.hosts[1].address.to_string();
    let peers = ["nowhere".to_owned(), there];
    let refused = "lookup nowhere: no such host".to_owned();
    let answer = mesh.hosts[0].answer(connect(&peers));
    assert_eq!(answer, Err(ConnectError::Failed(vec![refused])));
    mesh.run(5);
    assert_eq!(mesh.hosts[0].view().mesh.peers.len(), 2);
}

#[test]
fn connect_of_a_caller_who_is_gone_changes_nothing() {
    let mut mesh = Mesh::new(2, Services::NONE);
    let there = mesh.hosts[1].address.to_string();
    drop(mesh.hosts[0].ask(connect(&[there])));
    mesh.run(5);
    assert!(mesh.hosts[0].view().mesh.named_targets.is_empty());
}

#[test]
fn connect_is_tried_again_until_the_other_end_is_there() {
    let mut mesh = Mesh::new(2, Services::NONE);
    mesh.wires.set_cut(true);
    let there = mesh.hosts[1].address.to_string();
    assert_eq!(mesh.hosts[0].answer(connect(&[there])), Ok(()));
    mesh.run(5);
    let view = mesh.hosts[0].view();
    assert!(
        view.mesh.targets[0]
            .error
            .as_ref()
            .unwrap()
            .contains("refused")
    );
    mesh.wires.set_cut(false);
    // Connections that carry no frames are closed and dialled anew, so only for a while.
    let meet = |mesh: &mut Mesh| {
        (0..600).any(|_| {
            mesh.run(1);
            mesh.hosts[0].view().mesh.peers.len() == 2
        })
    };
    assert!(meet(&mut mesh));
    mesh.wires.break_all();
    mesh.settle();
    assert_eq!(mesh.hosts[0].view().mesh.peers.len(), 1);
    assert!(meet(&mut mesh), "it is dialled again");
}

#[test]
fn connect_in_background_shows_what_it_cannot_resolve_until_it_is_forgotten() {
    let mut mesh = lone(Services::ALL);
    let peers = vec!["nowhere".to_owned()];
    mesh.hosts[0].tell(Request::ConnectInBackground(peers.clone()));
    mesh.run(12);
    assert_eq!(mesh.hosts[0].view().mesh.named_targets, peers);
    mesh.hosts[0].answer(|reply| Request::Forget { peers, reply });
    mesh.run(12);
    assert!(mesh.hosts[0].view().mesh.named_targets.is_empty());
}

fn save(value: &[u8], revision: u64) -> impl FnOnce(Reply<Result<(), StoreError>>) -> Request {
    let value = value.to_vec();
    move |reply| Request::SaveRecord {
        key: b"k".to_vec(),
        value,
        revision,
        reply,
    }
}

#[test]
fn save_record_keeps_the_latest_revision() {
    let mut mesh = lone(Services::NONE);
    let host = &mut mesh.hosts[0];
    host.memory.hold();
    let mut answer = host.ask(save(b"two", 2));
    assert!(answer.try_recv().is_err(), "it is not on disk yet");
    host.memory.release();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_eq!(host.answer(save(b"one", 1)), Ok(()));
    assert_eq!(host.memory.get(b"k"), Some(b"two".to_vec()));
    drop(host.ask(save(b"three", 3)));
    assert_eq!(
        host.memory.get(b"k"),
        Some(b"three".to_vec()),
        "also for nobody"
    );
}

#[test]
fn save_record_says_that_the_store_failed() {
    let mut mesh = lone(Services::NONE);
    let host = &mut mesh.hosts[0];
    host.memory.set_broken(true);
    let saved = host.answer(save(b"one", 1));
    assert!(matches!(saved, Err(StoreError::Save { .. })), "{saved:?}");
}

fn gossip(to: u8) -> impl FnOnce(Reply<bool>) -> Request {
    move |reply| Request::SendGossip {
        topic: TOPIC,
        to: super::rig::name(to),
        payload: b"hello".to_vec(),
        reply,
    }
}

#[test]
fn send_gossip_reaches_the_consumer_of_its_topic() {
    let mut mesh = Mesh::connected(2, Services::ALL);
    assert!(mesh.hosts[0].answer(gossip(2)));
    assert!(!mesh.hosts[0].answer(gossip(9)), "there is no way");
    mesh.settle();
    let delivery = mesh.hosts[1].deliveries.try_recv().unwrap();
    let source = mesh.hosts[0].name;
    assert_eq!(delivery.kind, DeliveryKind::Unicast { source });
    assert_eq!(delivery.payload, b"hello");
    // A consumer that does not read loses messages, and nobody else does.
    for _ in 0..100 {
        drop(mesh.hosts[0].ask(gossip(2)));
        mesh.settle();
    }
    assert_eq!(mesh.hosts[1].view().mesh.left_over.lost, 36);
}

#[test]
fn stop_ends_the_loop() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    assert!(!host.control.is_stopping());
    host.answer(Request::Stop);
    assert!(host.control.is_stopping());
}

#[test]
fn without_randomness_there_are_no_connections_and_the_next_try_makes_one() {
    let mut mesh = Mesh::new(2, Services::NONE);
    mesh.hosts[0].random.set_empty(true);
    let there = mesh.hosts[1].address.to_string();
    assert_eq!(mesh.hosts[0].answer(connect(&[there])), Ok(()));
    mesh.run(5);
    let view = mesh.hosts[0].view();
    let error = view.mesh.targets[0].error.as_ref().unwrap();
    assert!(error.contains("random"), "{error}");
    mesh.hosts[0].random.set_empty(false);
    let is_met = (0..600).any(|_| {
        mesh.run(1);
        mesh.hosts[0].view().mesh.peers.len() == 2
    });
    assert!(is_met);
}

#[test]
fn view_copies_only_what_has_changed() {
    let mut mesh = lone(Services::ALL);
    let host = &mut mesh.hosts[0];
    let first = host.view();
    let again = host.view();
    assert!(Arc::ptr_eq(&first.mesh, &again.mesh));
    let addresses = |view: &View| Arc::clone(view.addresses.as_ref().unwrap());
    let names = |view: &View| Arc::clone(view.names.as_ref().unwrap());
    assert!(Arc::ptr_eq(&addresses(&first), &addresses(&again)));
    assert!(Arc::ptr_eq(&names(&first), &names(&again)));
    host.answer(register(&["db"])).unwrap();
    let named = host.view();
    assert!(!Arc::ptr_eq(&names(&first), &names(&named)));
    assert_eq!(names(&named).alive, 1, "a caller reads what it wrote");
    assert!(Arc::ptr_eq(&addresses(&first), &addresses(&named)));
    host.answer(address(allocate("c1"), None)).unwrap();
    assert_eq!(addresses(&host.view()).status.used, 1);
    // Nobody is there to take this one, and the next one comes all the same.
    drop(host.ask(Request::View));
    host.view();
}

#[tokio::test]
async fn view_of_a_loop_that_hangs_is_the_last_one() {
    let mut mesh = lone(Services::ALL);
    let view = mesh.hosts[0].view();
    let (client, mut inbox) = Client::new();
    assert!(client.view().await.is_err(), "there was none yet");
    let made = Arc::clone(&view);
    let first = client.clone();
    let first = tokio::spawn(async move { first.first_view().await.unwrap() });
    while let Some(request) = inbox.requests.recv().await {
        let Request::View(reply) = request else {
            panic!("a view is asked for");
        };
        if !reply.is_abandoned() {
            reply.send(made);
            break;
        }
    }
    assert!(Arc::ptr_eq(&first.await.unwrap(), &view));
    // The loop takes nothing any more.
    let begin = std::time::Instant::now();
    assert!(Arc::ptr_eq(&client.view().await.unwrap(), &view));
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(inbox);
    assert!(client.view().await.is_err(), "it has ended");
}
