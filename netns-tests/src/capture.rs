//! What passes an interface.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::netns::Namespace;
use kernel::sys::packet::PacketSocket;

use crate::wait;

/// All frames that pass an interface, in both directions, since it was started.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<Vec<Vec<u8>>>,
    stopping: AtomicBool,
}

impl Capture {
    /// Captures from now on. A VLAN tag that a frame begins with is not seen: the kernel keeps it
    /// elsewhere.
    pub fn start(namespace: &Namespace, interface: &str) -> Capture {
        Capture::of(namespace, interface, |_| true)
    }

    /// Captures only some frames from now on.
    pub fn of(
        namespace: &Namespace,
        interface: &str,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Capture {
        let link = namespace.netlink().unwrap().link_named(interface).unwrap();
        let open = || PacketSocket::open(link.index.0, true).unwrap();
        let socket = namespace.run(open).unwrap();
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 128 * 1024];
            while !writer.stopping.load(Ordering::Relaxed) {
                let length = socket.receive(&mut buffer, Duration::from_millis(50));
                if let Some(frame) = length.ok().map(|length| &buffer[..length])
                    && wanted(frame)
                {
                    writer.frames.lock().unwrap().push(frame.to_vec());
                }
            }
        });
        Capture {
            shared,
            thread: Some(thread),
        }
    }

    /// Returns the frames so far that are wanted.
    pub fn all(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let frames = self.shared.frames.lock().unwrap();
        let wanted = frames.iter().filter(|frame| wanted(frame));
        wanted.cloned().collect()
    }

    /// Returns how many frames so far are wanted.
    pub fn count(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let frames = self.shared.frames.lock().unwrap();
        frames.iter().filter(|frame| wanted(frame)).count()
    }

    /// Waits for a frame that is wanted; one that passed before counts.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        wait::until(what, wait::SOON, || {
            let frames = self.shared.frames.lock().unwrap();
            frames.iter().find(|frame| wanted(frame)).cloned()
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}
