//! A container with an identity is removed on one host and started on another: it has the same
//! address there, and answers soon.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Demo, DemoError, Show, container_name, measure};
use kernel::netns::Namespace;

/// Identity of the container.
pub const IDENTITY: &str = "web";
/// Maximum time for its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Result of moving a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Number of the host on which it ran first.
    pub from: usize,
    /// Host on which it ran then.
    pub to: usize,
    /// Number of the container that pinged it all the time.
    pub observer: usize,
    /// Its address on the first host ...
    pub before: Ipv4Addr,
    /// ... and on the second.
    pub after: Ipv4Addr,
    /// Time until it was attached on the second host.
    pub attached: Duration,
    /// From the beginning of that until it answered there; none if it never did.
    pub answered: Option<Duration>,
}

impl Moved {
    /// Returns true if it kept its address and answers.
    pub fn is_well(&self) -> bool {
        self.before == self.after && self.answered.is_some()
    }
}

/// Moves a container from the first host to the second.
pub(super) async fn run(demo: &Demo<'_>, show: &mut Show<'_>) -> Result<Moved, DemoError> {
    let [from, to] = [0, 1];
    // One on a third host, if there is one: it has to learn where the address is.
    let observer = if demo.hosts.len() > 2 { 2 } else { from };
    let watching = demo.hosts[observer].container.clone();

    let (first, before) = start(demo, from, show).await?;
    measure::answer_within(&watching, before, ANSWER_TIME_MAX).await?;
    let stop = ["detach"];
    demo.on_container(from, &stop, &first, IDENTITY, show)
        .await?;
    let started = Instant::now();
    let (second, after) = start(demo, to, show).await?;
    let attached = started.elapsed();
    let answer = measure::answer_within(&watching, after, ANSWER_TIME_MAX).await?;
    let answered = answer.then(|| started.elapsed());
    drop(second);
    Ok(Moved {
        from,
        to,
        observer,
        before,
        after,
        attached,
        answered,
    })
}

/// Attaches a new container of the identity on a host.
async fn start(
    demo: &Demo<'_>,
    host: usize,
    show: &mut Show<'_>,
) -> Result<(Namespace, Ipv4Addr), DemoError> {
    let container = demo.lab.new_container()?.labelled(IDENTITY);
    let words = ["attach", "--identity", IDENTITY];
    let said = demo
        .on_container(host, &words, &container, IDENTITY, show)
        .await?;
    let address = said.lines().find_map(|line| line.trim().parse().ok());
    let address = address.ok_or_else(|| DemoError::Command {
        host: demo.hosts[host].name.clone(),
        command: format!("weft {} {}", words.join(" "), container_name(host)),
        said,
    })?;
    Ok((container, address))
}
