//! Runs the loop: waits for what happens next and hands it to control, turn by turn.

use boundary::connections::ConnectionEvent;
use boundary::forwarding_event::Events;
use tokio::sync::mpsc;

use super::addresses::Saved;
use super::client::Inbox;
use super::control::{Control, Input};

/// Events handled before outputs are acted on, so that a flood of one kind delays no other.
const EVENTS_PER_TURN_MAX: usize = 64;

/// Inputs of the loop.
pub struct Inputs {
    /// Requests of others.
    pub inbox: Inbox,
    /// Events of connections.
    pub connections: mpsc::Receiver<ConnectionEvent>,
    /// Events from data threads.
    pub forwarding: Events,
    /// Results of saving the allocator's records.
    pub saved: mpsc::UnboundedReceiver<Saved>,
}

/// Runs control until somebody asks it to stop. The data plane ends with it; devices stay.
pub async fn run(mut control: Control, mut inputs: Inputs) {
    control.finish_turn();
    while !control.is_stopping() {
        let wait = control.next_wake().since(control.now());
        tokio::select! {
            Some(request) = inputs.inbox.requests.recv() => {
                control.handle(Input::Request(request));
            }
            () = inputs.inbox.abandoned.notified() => control.handle(Input::CallersGone),
            Some(event) = inputs.connections.recv() => {
                control.handle(Input::Connection(event));
                for _ in 1..EVENTS_PER_TURN_MAX {
                    let Ok(event) = inputs.connections.try_recv() else { break };
                    control.handle(Input::Connection(event));
                }
            }
            Some(event) = inputs.forwarding.recv() => {
                control.handle(Input::Forwarding(event));
                for _ in 1..EVENTS_PER_TURN_MAX {
                    let Ok(event) = inputs.forwarding.try_recv() else { break };
                    control.handle(Input::Forwarding(event));
                }
            }
            Some(saved) = inputs.saved.recv() => {
                control.handle(Input::Saved(saved));
                while let Ok(saved) = inputs.saved.try_recv() {
                    control.handle(Input::Saved(saved));
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        control.handle(Input::Time);
        control.finish_turn();
    }
}
