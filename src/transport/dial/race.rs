//! Which of several addresses of one name to connect to: the fastest that answers, after RFC 8305 ("Happy Eyeballs").

use std::collections::HashSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt, io};

use tokio::time::sleep;

/// How long an attempt is alone before the next one joins it (RFC 8305, section 8: Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to the addresses in their order until one attempt succeeds, and drops the others.
///
/// The next attempt starts when an attempt fails, or 250 ms after the last one started; those under way go on.
///
/// # Errors
///
/// When every attempt has failed, and at once if there are no addresses.
///
/// # Cancel safety
///
/// Dropping the future drops every attempt.
pub(super) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> Result<T, AllFailed>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = Vec::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push(Attempt {
                address,
                future: Box::pin(connect(address)),
            });
        } else if running.is_empty() {
            return Err(AllFailed(failed));
        }
        tokio::select! {
            biased;
            (address, result) = poll_fn(|cx| poll_first(&mut running, cx)) => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => failed.push((address, error)),
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// Orders a resolver's answer for a race: families alternate, beginning with that of the first address, which is the
/// one that the system prefers (RFC 6724); within a family the order stays (RFC 8305, section 4). Drops repetitions.
pub(super) fn interleave(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let ipv6_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == ipv6_first);
    let mut other = other.into_iter();
    let mut mixed: Vec<_> = preferred
        .into_iter()
        .flat_map(|address| [Some(address), other.next()])
        .flatten()
        .collect();
    mixed.extend(other);
    mixed
}

/// The failed attempts of a race, in the order in which they failed. Displays each address with its error.
#[derive(Debug)]
pub(super) struct AllFailed(Vec<(SocketAddr, io::Error)>);

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (address, error)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl AllFailed {
    /// The last failure, without its address.
    pub(super) fn into_last(mut self) -> io::Error {
        self.0
            .pop()
            .map_or_else(|| io::ErrorKind::NotFound.into(), |(_, error)| error)
    }
}

impl error::Error for AllFailed {}

impl From<AllFailed> for io::Error {
    /// The error has the kind of the last failure.
    fn from(all: AllFailed) -> Self {
        let kind = all
            .0
            .last()
            .map_or(io::ErrorKind::NotFound, |(_, error)| error.kind());
        Self::new(kind, all)
    }
}

struct Attempt<F> {
    address: SocketAddr,
    future: Pin<Box<F>>,
}

/// Takes out the first attempt that has ended. Races are small, so every attempt is polled whichever was woken.
fn poll_first<F: Future>(
    running: &mut Vec<Attempt<F>>,
    cx: &mut Context<'_>,
) -> Poll<(SocketAddr, F::Output)> {
    for at in 0..running.len() {
        if let Poll::Ready(output) = running[at].future.as_mut().poll(cx) {
            return Poll::Ready((running.remove(at).address, output));
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::pin::pin;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;
    use crate::time::Instant;

    /// What becomes of an attempt: the outcome and when, in milliseconds from its start.
    #[derive(Clone, Copy)]
    enum Fate {
        Succeeds(u64),
        Fails(u64),
        Hangs,
    }
    use Fate::{Fails, Hangs, Succeeds};

    /// Peers whose ports are the positions of their fates.
    struct Network {
        fates: Vec<Fate>,
        start: Instant,
        /// Milliseconds from the start of the race, by port.
        started: RefCell<Vec<(u16, u128)>>,
        open: Cell<usize>,
    }

    struct Open<'a>(&'a Cell<usize>);

    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    impl Network {
        fn new(fates: impl Into<Vec<Fate>>) -> Self {
            Self {
                fates: fates.into(),
                start: Instant::now(),
                started: RefCell::default(),
                open: Cell::new(0),
            }
        }

        fn now(&self) -> u128 {
            self.start.elapsed().as_millis()
        }

        async fn race(&self) -> Result<u16, AllFailed> {
            let addresses = (0..self.fates.len())
                .map(|at| SocketAddr::from(([127, 0, 0, 1], at as u16)))
                .collect();
            let race = race(addresses, |address| self.connect(address.port()));
            // On the paused clock an hour is over as soon as nothing else happens.
            timeout(Duration::from_secs(3_600), race)
                .await
                .expect("the race never ends")
        }

        async fn connect(&self, port: u16) -> io::Result<u16> {
            self.started.borrow_mut().push((port, self.now()));
            self.open.set(self.open.get() + 1);
            let _open = Open(&self.open);
            match self.fates[usize::from(port)] {
                Succeeds(after) => {
                    sleep(Duration::from_millis(after)).await;
                    Ok(port)
                }
                Fails(after) => {
                    sleep(Duration::from_millis(after)).await;
                    Err(io::Error::other(format!("failed after {after} ms")))
                }
                Hangs => std::future::pending().await,
            }
        }

        fn started(&self) -> Vec<(u16, u128)> {
            self.started.borrow().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_start_in_order_and_apart() {
        let network = Network::new([Hangs, Hangs, Hangs, Succeeds(10), Hangs]);
        assert_eq!(network.race().await.unwrap(), 3);
        assert_eq!(network.started(), [(0, 0), (1, 250), (2, 500), (3, 750)]);
        assert_eq!((network.now(), network.open.get()), (760, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_success_is_alone() {
        let network = Network::new([Succeeds(249), Succeeds(0)]);
        assert_eq!(network.race().await.unwrap(), 0);
        assert_eq!(network.started(), [(0, 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_goes_on_and_may_win() {
        let network = Network::new([Succeeds(400), Hangs, Hangs]);
        assert_eq!(network.race().await.unwrap(), 0);
        assert_eq!(network.started(), [(0, 0), (1, 250)]);
        assert_eq!((network.now(), network.open.get()), (400, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_attempt_at_once() {
        let network = Network::new([Fails(30), Fails(0), Hangs, Succeeds(100)]);
        assert_eq!(network.race().await.unwrap(), 3);
        assert_eq!(network.started(), [(0, 0), (1, 30), (2, 30), (3, 280)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_an_older_attempt_starts_the_next_too() {
        let network = Network::new([Fails(300), Hangs, Succeeds(5)]);
        assert_eq!(network.race().await.unwrap(), 2);
        assert_eq!(network.started(), [(0, 0), (1, 250), (2, 300)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_is_waited_for() {
        let network = Network::new([Fails(1), Succeeds(60_000)]);
        assert_eq!(network.race().await.unwrap(), 1);
        assert_eq!(network.now(), 60_001);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_error_names_each() {
        let network = Network::new([Fails(300), Fails(20), Fails(7)]);
        let error = io::Error::from(network.race().await.unwrap_err());
        assert_eq!(
            error.to_string(),
            "127.0.0.1:1: failed after 20 ms; 127.0.0.1:2: failed after 7 ms; 127.0.0.1:0: failed after 300 ms",
        );
        assert_eq!(network.now(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_has_the_kind_of_the_last_failure() {
        let peers: Vec<SocketAddr> =
            vec!["[::1]:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()];
        let result: Result<(), _> = race(peers, |peer| async move {
            let kind = if peer.is_ipv6() {
                io::ErrorKind::NetworkUnreachable
            } else {
                io::ErrorKind::ConnectionRefused
            };
            Err(kind.into())
        })
        .await;
        let error = io::Error::from(result.unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(
            error.to_string(),
            "[::1]:1: network unreachable; 127.0.0.1:1: connection refused"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_without_addresses_fails() {
        assert!(Network::new([]).race().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_race_drops_every_attempt() {
        let network = Network::new([Hangs, Hangs, Hangs, Hangs]);
        {
            let mut race = pin!(network.race());
            assert!(
                timeout(Duration::from_millis(600), race.as_mut())
                    .await
                    .is_err()
            );
            assert_eq!(network.open.get(), 3);
        }
        assert_eq!(network.open.get(), 0);
    }

    #[test]
    fn families_alternate_from_the_preferred_one() {
        let cases = [
            ("", ""),
            ("4a 4b", "4a 4b"),
            ("6a 6b 6c 4a 4b", "6a 4a 6b 4b 6c"),
            ("4a 6a 6b 6c", "4a 6a 6b 6c"),
            ("4a 4b 6a", "4a 6a 4b"),
            ("6a 4a 6a 4a 4b", "6a 4a 4b"),
        ];
        let read = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace()
                .map(|short| match short.split_at(1) {
                    ("6", last) => format!("[::{last}]:80").parse().unwrap(),
                    (_, last) => SocketAddr::from(([10, 0, 0, last.as_bytes()[0]], 80)),
                })
                .collect()
        };
        for (answer, order) in cases {
            assert_eq!(interleave(read(answer)), read(order), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn no_address_is_lost_or_repeated(answer in proptest::collection::vec((any::<bool>(), 0..6_u16), 0..20)) {
            let answer: Vec<_> = answer
                .into_iter()
                .map(|(ipv6, port)| if ipv6 { ([0_u16; 8], port).into() } else { ([0_u8; 4], port).into() })
                .collect();
            let order = interleave(answer.clone());
            let distinct: HashSet<SocketAddr> = answer.iter().copied().collect();
            prop_assert_eq!(order.len(), distinct.len());
            prop_assert_eq!(order.iter().copied().collect::<HashSet<_>>(), distinct);
            prop_assert_eq!(order.first(), answer.first());
        }
    }
}
