//! A synchronous netlink socket: one request, then its answers.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::wire::{self, Message, Request};
use crate::error::{KernelError, NetError};
use crate::sys::sockopt;

/// A netlink socket. It belongs to the network namespace in which it was opened, forever, and may
/// be used from any thread; requests of several threads wait for each other.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The number of the last request, held for as long as that is being answered.
    sequence: Mutex<u32>,
}

impl Socket {
    /// Returns a socket to the kernel's routing tables in the calling thread's namespace.
    pub fn route() -> Result<Socket, NetError> {
        Socket::open(None) // NETLINK_ROUTE is number 0.
    }

    /// Returns a socket to the kernel's packet filter in the calling thread's namespace.
    pub fn netfilter() -> Result<Socket, NetError> {
        Socket::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Socket, NetError> {
        let failed = |errno| KernelError::new("open a netlink socket", errno);
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
        rustix::net::sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(REPLY_TIMEOUT))
            .map_err(failed)?;
        // All three only make answers better: explanations of errors, errors that do not repeat
        // the request, and lists that are filtered by the kernel. Linux before 4.20 lacks some.
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = sockopt::set(&fd, SOL_NETLINK, option, 1);
        }
        Ok(Socket {
            fd,
            sequence: Mutex::new(0),
        })
    }

    /// Sends a request and waits until the kernel has done it. `what` is the sentence with which
    /// an error starts.
    pub fn execute(&self, what: impl FnOnce() -> String, request: Request) -> Result<(), NetError> {
        let answer = self
            .exchange()
            .ask(request, wire::NLM_F_ACK, Until::Acknowledged);
        match answer {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.at(what())),
        }
    }

    /// Sends a request for one thing and returns the answer.
    pub fn get(
        &self,
        what: impl FnOnce() -> String,
        request: Request,
    ) -> Result<Message, NetError> {
        let answer = self
            .exchange()
            .ask(request, wire::NLM_F_ACK, Until::Acknowledged);
        let found = answer.and_then(|messages| messages.into_iter().next().ok_or(Failure::Shape));
        found.map_err(|failure| failure.at(what()))
    }

    /// Sends a request for a list and returns all of it, taken at one instant: when the list
    /// changes while the kernel writes it, it is asked for again.
    pub fn list(
        &self,
        what: impl FnOnce() -> String,
        request: &Request,
    ) -> Result<Vec<Message>, NetError> {
        for attempt in 1.. {
            let answer = self
                .exchange()
                .ask(request.clone(), wire::NLM_F_DUMP, Until::Done);
            match answer {
                Err(Failure::Interrupted) if attempt < LIST_ATTEMPTS_MAX => {}
                Err(failure) => return Err(failure.at(what())),
                Ok(messages) => return Ok(messages),
            }
        }
        Ok(Vec::new())
    }

    /// Sends several messages as one transaction. `steps` says for each message what it does.
    /// Either everything is done, or nothing and the first failed step is returned.
    pub fn batch(
        &self,
        begin: Request,
        steps: Vec<(String, Request)>,
        end: Request,
    ) -> Result<(), NetError> {
        let mut exchange = self.exchange();
        let first = exchange.next_sequence();
        let mut datagram = begin.finish(first, 0);
        let mut open = Vec::with_capacity(steps.len());
        for (what, request) in steps {
            let sequence = exchange.next_sequence();
            datagram.extend(request.finish(sequence, wire::NLM_F_ACK));
            open.push((sequence, what));
        }
        datagram.extend(end.finish(exchange.next_sequence(), 0));
        let whole = "change the packet filter";
        exchange
            .send(&datagram)
            .map_err(|failure| failure.at(whole))?;
        let mut first_error = None;
        let mut buffer = vec![0; RECEIVE_BYTES];
        while !open.is_empty() {
            let received = exchange.receive(&mut buffer);
            for message in received.map_err(|failure| failure.at(whole))? {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let result = acknowledgement(&message);
                if message.sequence == first {
                    // The transaction as a whole was refused; its steps are not answered.
                    let failed = result.err().map(|failure| failure.at(whole));
                    return Err(failed.unwrap_or(NetError::Malformed { what: whole.into() }));
                }
                let Some(at) = open.iter().position(|(s, _)| *s == message.sequence) else {
                    continue;
                };
                let (_, what) = open.remove(at);
                if let Err(failure) = result {
                    first_error.get_or_insert_with(|| failure.at(what));
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn exchange(&self) -> Exchange<'_> {
        // A panic elsewhere leaves no more than unread answers, which are passed over.
        let sequence = self.sequence.lock();
        Exchange {
            fd: &self.fd,
            sequence: sequence.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A request and its answers, which no other thread's come between.
struct Exchange<'a> {
    fd: &'a OwnedFd,
    sequence: MutexGuard<'a, u32>,
}

impl Exchange<'_> {
    fn ask(&mut self, request: Request, flags: u16, until: Until) -> Result<Vec<Message>, Failure> {
        let sequence = self.next_sequence();
        self.send(&request.finish(sequence, flags))?;
        self.collect(sequence, until)
    }

    fn next_sequence(&mut self) -> u32 {
        *self.sequence = self.sequence.wrapping_add(1).max(1);
        *self.sequence
    }

    fn send(&self, datagram: &[u8]) -> Result<(), Failure> {
        match rustix::net::send(self.fd, datagram, SendFlags::empty()) {
            Ok(sent) if sent == datagram.len() => Ok(()),
            Ok(_) => Err(Failure::Shape),
            Err(errno) => Err(Failure::Kernel(errno, None)),
        }
    }

    /// Collects the messages that answer request `sequence`. Answers to earlier requests, which a
    /// time-out may have left in the queue, are passed over.
    fn collect(&self, sequence: u32, until: Until) -> Result<Vec<Message>, Failure> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut answer = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(&mut buffer)? {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & wire::NLM_F_DUMP_INTR != 0;
                match (message.kind, until) {
                    (NLMSG_ERROR, Until::Acknowledged) => {
                        return acknowledgement(&message).map(|()| answer);
                    }
                    (NLMSG_ERROR, Until::Done) => acknowledgement(&message)?,
                    (NLMSG_DONE, _) => {
                        list_end(&message)?;
                        return if interrupted {
                            Err(Failure::Interrupted)
                        } else {
                            Ok(answer)
                        };
                    }
                    (NLMSG_NOOP, _) => {}
                    _ => answer.push(message),
                }
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Vec<Message>, Failure> {
        loop {
            // With TRUNC the second number is the length of the whole datagram.
            let received = rustix::net::recvfrom(self.fd, &mut *buffer, RecvFlags::TRUNC);
            let (_, length, from) = match received {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Err(Failure::Kernel(Errno::TIMEDOUT, None)),
                Err(errno) => return Err(Failure::Kernel(errno, None)),
            };
            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if from.is_none_or(|from| from.pid() != 0) {
                continue; // Not from the kernel: any process may send to this socket.
            }
            let datagram = buffer.get(..length).ok_or(Failure::Shape)?;
            return Ok(wire::messages(datagram));
        }
    }
}

/// The end of the answer to a request.
#[derive(Clone, Copy)]
enum Until {
    Acknowledged,
    Done,
}

/// Why there is no answer.
enum Failure {
    Kernel(Errno, Option<String>),
    Shape,
    Interrupted,
}

impl Failure {
    fn at(self, what: impl Into<String>) -> NetError {
        let what = what.into();
        match self {
            Failure::Kernel(errno, detail) => KernelError {
                what,
                errno,
                detail,
            }
            .into(),
            Failure::Shape => NetError::Malformed { what },
            Failure::Interrupted => KernelError::new(what, Errno::AGAIN).into(),
        }
    }
}

/// Returns the result in an NLMSG_ERROR message: a negative error number, zero for success, then
/// the header of the request (all of it unless capped), then attributes.
fn acknowledgement(message: &Message) -> Result<(), Failure> {
    let code = error_code(message)?;
    if code == 0 {
        return Ok(());
    }
    let mut skip = 4 + wire::HEADER_BYTES;
    if message.flags & wire::NLM_F_CAPPED == 0 {
        skip = 4 + wire::u32_at(&message.payload, 4) as usize;
    }
    let mut detail = None;
    if message.flags & wire::NLM_F_ACK_TLVS != 0 {
        detail = message.attributes(skip).text(NLMSGERR_ATTR_MSG);
    }
    Err(Failure::Kernel(Errno::from_raw_os_error(-code), detail))
}

/// Returns a list ends with an error number as well, followed by attributes.
fn list_end(message: &Message) -> Result<(), Failure> {
    match error_code(message)? {
        code if code < 0 => {
            let mut detail = None;
            if message.flags & wire::NLM_F_ACK_TLVS != 0 {
                detail = message.attributes(4).text(NLMSGERR_ATTR_MSG);
            }
            Err(Failure::Kernel(Errno::from_raw_os_error(-code), detail))
        }
        _ => Ok(()),
    }
}

fn error_code(message: &Message) -> Result<i32, Failure> {
    let code = message.header().ok_or(Failure::Shape)?;
    let code = i32::from_ne_bytes(*code);
    // Positive numbers and numbers beyond MAX_ERRNO are no errors.
    if (-4095..=0).contains(&code) {
        Ok(code)
    } else {
        Err(Failure::Shape)
    }
}

/// Maximum time for an answer of the kernel. It answers while it takes the request, so this is only
/// reached when something is broken; the operation then fails with "timed out".
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of attempts to read a list that changes while it is written, before that is an error.
const LIST_ATTEMPTS_MAX: u32 = 20;
/// Size in bytes of the buffer for one datagram of an answer; the kernel writes at most 32 KiB of a
/// list at a time. A longer datagram is an error.
const RECEIVE_BYTES: usize = 64 * 1024;

const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(flags: u16, payload: Vec<u8>) -> Message {
        Message {
            kind: NLMSG_ERROR,
            flags,
            sequence: 1,
            payload,
        }
    }

    fn failed(result: Result<(), Failure>) -> Option<(Errno, Option<String>)> {
        match result {
            Err(Failure::Kernel(errno, detail)) => Some((errno, detail)),
            _ => None,
        }
    }

    #[test]
    fn reads_acknowledgements() {
        let ok = error_message(0, vec![0; 20]);
        assert!(acknowledgement(&ok).is_ok());
        let short = error_message(0, vec![0; 3]);
        assert!(matches!(acknowledgement(&short), Err(Failure::Shape)));

        // An attribute with a text behind the header of the request.
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend([0; wire::HEADER_BYTES]);
        payload.extend([9, 0, 1, 0, b'b', b'u', b's', b'y', 0]);
        let capped = error_message(wire::NLM_F_CAPPED | wire::NLM_F_ACK_TLVS, payload);
        assert_eq!(
            failed(acknowledgement(&capped)),
            Some((Errno::EXIST, Some("busy".into())))
        );

        let strange = error_message(0, 5i32.to_ne_bytes().to_vec());
        assert!(matches!(acknowledgement(&strange), Err(Failure::Shape)));
    }
}
