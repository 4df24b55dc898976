//! The task that asks all endpoints of a channel.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::directory::Directory;
use crate::endpoint::{Endpoint, EndpointSet, Member, Subchannel};
use crate::pool::State;
use crate::task::Tasks;
use crate::token::TokenHolder;

use super::attend::Patient;
use super::{HealthCheck, ProbeTarget};

/// What probes are made with.
#[derive(Debug)]
pub(crate) struct Means {
    pub(super) check: HealthCheck,
    pub(super) token: Option<Arc<TokenHolder>>,
    pub(super) tasks: Tasks,
    /// How many questions may be under way: ten thousand endpoints that connect at once are not all asked at once.
    pub(super) turns: Semaphore,
}

const AT_ONCE: usize = 256;

impl Means {
    pub(crate) fn new(
        check: HealthCheck,
        token: Option<Arc<TokenHolder>>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            check,
            token,
            tasks,
            turns: Semaphore::new(AT_ONCE),
        })
    }
}

/// One endpoint, as the task knows it.
struct Known {
    subchannel: Weak<Subchannel>,
    /// As discovery described it.
    endpoint: Endpoint,
    /// While it is connected.
    attended: Option<AbortHandle>,
    told: Arc<AtomicBool>,
}

impl Known {
    fn new(subchannel: &Arc<Subchannel>, endpoint: &Endpoint) -> Self {
        Self {
            subchannel: Arc::downgrade(subchannel),
            endpoint: endpoint.clone(),
            attended: None,
            told: Arc::default(),
        }
    }

    /// Sees to it that this is the one that is asked, and in this way: an endpoint that left and came back at once is
    /// another one, and discovery may have another name for its service.
    fn renew(&mut self, subchannel: &Arc<Subchannel>, endpoint: &Endpoint) {
        let is_same = std::ptr::eq(self.subchannel.as_ptr(), Arc::as_ptr(subchannel));
        if !is_same || self.endpoint != *endpoint {
            self.give_up();
            *self = Self::new(subchannel, endpoint);
        }
    }

    fn give_up(&mut self) {
        if let Some(handle) = self.attended.take() {
            handle.abort();
        }
    }
}

/// Asks the endpoints of the directory until that stops: each as long as it is connected. All of it is one task; an
/// endpoint costs a timer, and a stream while it is asked.
pub(crate) async fn watch_over(directory: Arc<Directory>, means: Arc<Means>) {
    let mut known: HashMap<u64, Known> = HashMap::new();
    let mut attending: FuturesUnordered<Abortable<BoxFuture<'static, ()>>> =
        FuturesUnordered::new();
    loop {
        let set = Arc::clone(&directory.set());
        for patient in follow(&set, &mut known, &means) {
            attending.push(patient);
        }
        let changed = directory.newer_than(set.version);
        drop(set);
        tokio::pin!(changed);
        loop {
            tokio::select! {
                () = directory.stopped() => return,
                () = &mut changed => break,
                // One that was given up; it ends on no other way.
                Some(_) = attending.next() => {}
            }
        }
    }
}

/// Begins with those that have become connected, and gives up the others.
fn follow(
    set: &EndpointSet,
    known: &mut HashMap<u64, Known>,
    means: &Arc<Means>,
) -> Vec<Abortable<BoxFuture<'static, ()>>> {
    let mut begun = Vec::new();
    let mut seen = HashSet::with_capacity(known.len());
    for member in set.members.iter() {
        let Some(subchannel) = &member.subchannel else {
            continue;
        };
        seen.insert(subchannel.identity);
        let entry = known
            .entry(subchannel.identity)
            .or_insert_with(|| Known::new(subchannel, &member.endpoint));
        entry.renew(subchannel, &member.endpoint);
        let is_ready = subchannel.pool.state() == State::Ready;
        match (&entry.attended, is_ready) {
            (None, true) => {
                let patient = patient(member, subchannel, &entry.told, means);
                let Some(patient) = patient else { continue };
                let future: BoxFuture<'static, ()> = Box::pin(patient.attend());
                let (future, handle) = abortable(future);
                entry.attended = Some(handle);
                begun.push(future);
            }
            (Some(_), false) => entry.give_up(),
            _ => {}
        }
    }
    known.retain(|identity, it| {
        let stays = seen.contains(identity);
        if !stays {
            it.give_up();
        }
        stays
    });
    begun
}

fn patient(
    member: &Member,
    subchannel: &Arc<Subchannel>,
    told: &Arc<AtomicBool>,
    means: &Arc<Means>,
) -> Option<Patient> {
    Some(Patient {
        subchannel: Arc::clone(subchannel),
        target: ProbeTarget {
            address: member.endpoint.address().ok()?.clone(),
            metadata: Arc::clone(member.endpoint.facts()),
        },
        service: member
            .endpoint
            .health_service_name()
            .unwrap_or(&means.check.service)
            .into(),
        told: Arc::clone(told),
        answered: AtomicU64::new(subchannel.health.answered()),
        means: Arc::clone(means),
    })
}
