//! The open connections of an endpoint, and the state that follows from them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;
use deadpool::managed::{self, Object};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::error::Error;
use crate::lock::lock;
use crate::task::Tasks;
use crate::time::Instant;
use crate::transport::connection::{
    Connection, End, Http2Options, Keepalive, KeepaliveState, Observer,
};
use crate::transport::dial::{Dial, UnixOptions};
use crate::transport::security::{PeerIdentity, Security, TlsSettings};
#[cfg(feature = "__tls")]
use crate::transport::tls::Certificate;

use super::dialling::Dialling;
use super::gate::DialGate;
use super::manager::{Made, Manager};
use super::options::AGE_JITTER;
use super::room::Room;
use super::{PoolOptions, State};

/// What all pools of a channel share.
#[derive(Clone, Debug)]
pub(crate) struct PoolContext {
    pub(crate) options: PoolOptions,
    pub(crate) http2: Http2Options,
    pub(crate) keepalive: Keepalive,
    pub(crate) dialer: Arc<dyn Dial>,
    /// Of endpoints that have none of their own.
    pub(crate) unix: UnixOptions,
    pub(crate) tasks: Tasks,
    /// Notified whenever a pool's state changes.
    pub(crate) flips: Arc<Notify>,
    pub(crate) gate: DialGate,
    pub(crate) tls: TlsSettings,
}

/// The pool of one endpoint. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) this: Weak<Self>,
    pub(super) options: PoolOptions,
    pub(super) tasks: Tasks,
    flips: Arc<Notify>,
    pub(super) gate: DialGate,
    pub(super) objects: managed::Pool<Manager>,
    /// The connections that take calls, oldest first. Written under `book`'s lock only.
    pub(super) open: ArcSwap<Vec<Arc<Pooled>>>,
    pub(super) room: Arc<Room>,
    pub(super) queue: Queue,
    /// Told when the pool stops being ready: nobody in the queue may count on it any more.
    pub(super) unready: Notify,
    pub(super) book: Mutex<Book>,
    /// Ends the dialling task.
    pub(super) closing: CancellationToken,
}

/// Counts the calls that wait for a permit.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) entered: AtomicUsize,
    pub(super) left: AtomicUsize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        // `left` first: it can't overtake an `entered` that is read later.
        let left = self.left.load(Ordering::Acquire);
        self.entered.load(Ordering::Acquire).wrapping_sub(left)
    }
}

/// What changes rarely, under one lock.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) state: State,
    pub(super) since: Instant,
    pub(super) dialling: Dialling,
    /// Retired connections that finish their calls.
    draining: Vec<Weak<Pooled>>,
    closed: bool,
}

/// A connection that serves calls.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(super) id: u64,
    pub(crate) connection: Connection,
    pub(super) peer: PeerIdentity,
    pub(super) born: Instant,
    /// When it is to be replaced.
    pub(super) expires: Option<Instant>,
    /// Its place among deadpool's; taken when it goes home or retires.
    pub(super) object: Mutex<Option<Object<Manager>>>,
    pub(super) room: Arc<Room>,
    /// Slots that health checks have.
    pub(super) questions: AtomicUsize,
}

/// A snapshot for `status()`.
#[derive(Clone, Debug)]
pub(crate) struct PoolStatus {
    pub(crate) state: State,
    pub(crate) since: Instant,
    pub(crate) last_error: Option<Arc<Error>>,
    pub(crate) failed_dials: u32,
    /// Successful and failed ones, in total.
    pub(crate) dials: (u64, u64),
    pub(crate) next_dial: Option<Instant>,
    pub(crate) open: usize,
    pub(crate) idle: usize,
    pub(crate) draining: usize,
    pub(crate) in_flight: usize,
    pub(crate) room: usize,
    pub(crate) waiting: usize,
    /// Of the oldest connection.
    #[cfg(feature = "__tls")]
    pub(crate) peer: PeerIdentity,
    /// This side's own certificate.
    #[cfg(feature = "__tls")]
    pub(crate) identity: Option<Certificate>,
    /// Why certificates that have changed are not in use.
    pub(crate) security_trouble: Option<Arc<str>>,
}

impl Pool {
    /// Makes the pool. It says that it is connecting, and does once it is told to [begin](Self::begin).
    pub(crate) fn new(
        address: Address,
        unix_options: &UnixOptions,
        security: Security,
        context: &PoolContext,
    ) -> Arc<Self> {
        let options = context.options.clone();
        let unix = address.is_unix();
        Arc::new_cyclic(|this: &Weak<Self>| {
            let observer: Weak<dyn Observer> = Weak::<Self>::clone(this);
            let manager = Manager {
                timeout: options.connect_timeout_for(unix),
                address,
                dialer: Arc::clone(&context.dialer),
                unix: unix_options.clone(),
                security,
                http2: context.http2.clone(),
                keepalive: KeepaliveState::new(&context.keepalive, unix),
                observer,
                tasks: context.tasks.clone(),
                next_id: 1.into(),
            };
            Self {
                this: Weak::clone(this),
                objects: manager.into_pool(options.max),
                options,
                tasks: context.tasks.clone(),
                flips: Arc::clone(&context.flips),
                gate: context.gate.clone(),
                open: ArcSwap::default(),
                room: Arc::new(Room::none()),
                queue: Queue::default(),
                unready: Notify::new(),
                book: Mutex::new(Book {
                    state: State::Connecting,
                    since: Instant::now(),
                    dialling: Dialling::default(),
                    draining: Vec::new(),
                    closed: false,
                }),
                closing: CancellationToken::new(),
            }
        })
    }

    /// Starts to dial.
    pub(crate) fn begin(&self) {
        self.dial_if_wanted(&mut lock(&self.book), 0);
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.book).state
    }

    /// Takes a connection from deadpool into service. Returns the room that it adds.
    pub(super) fn admit(&self, object: Object<Manager>) -> usize {
        let now = Instant::now();
        let mut book = lock(&self.book);
        let made = Made::clone(&object);
        let pooled = Arc::new(Pooled {
            id: made.id,
            expires: self.options.max_age.map(|age| {
                let jitter = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
                made.born + age.mul_f64(jitter)
            }),
            connection: made.connection,
            peer: made.peer,
            born: made.born,
            object: Mutex::new(Some(object)),
            room: Arc::clone(&self.room),
            questions: AtomicUsize::new(0),
        });
        let room = match pooled.connection.slots().admit() {
            Some(room) if !book.closed => room,
            Some(_) => {
                self.put_down(&mut book, &pooled);
                return 0;
            }
            None => {
                // It retired between the handshake and here, when its observer found it nowhere.
                pooled.detach();
                self.lost(&mut book, &pooled, now);
                return 0;
            }
        };
        // What has expired goes only now that its replacement can take the calls: one for one, the oldest first.
        let mut open = Vec::clone(&self.open.load_full());
        let expired = open.iter().position(|it| self.is_over(it, now));
        let expired = expired.map(|at| open.remove(at));
        open.push(pooled);
        self.open.store(Arc::new(open));
        if let Some(old) = expired {
            self.put_down(&mut book, &old);
        }
        book.dialling.succeeded(now);
        self.update(&mut book);
        self.room.gained(room);
        room
    }

    /// Closes for good: connections finish their calls and take no new ones.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        let mut book = lock(&self.book);
        book.closed = true;
        for pooled in self.open.swap(Arc::default()).iter() {
            self.put_down(&mut book, pooled);
        }
        for made in self.objects.retain(|_, _| false).removed {
            made.connection.retire();
        }
        self.objects.close();
        self.update(&mut book);
    }

    /// For a connection that was taken out of `open`: no new calls, and its place at deadpool is free.
    pub(super) fn put_down(&self, book: &mut Book, pooled: &Arc<Pooled>) {
        if let Some(lost) = pooled.connection.retire() {
            self.room.lost(lost);
        }
        pooled.detach();
        book.draining.retain(|it| it.strong_count() > 0);
        book.draining.push(Arc::downgrade(pooled));
    }

    /// A connection ended that this side did not end: sees to the next one.
    fn lost(&self, book: &mut Book, pooled: &Pooled, now: Instant) {
        let Some(end) = pooled.connection.end() else {
            return;
        };
        if *end != End::Local {
            let lived = now.saturating_duration_since(pooled.born);
            // What broke the protocol may have been the answer.
            let served = pooled.connection.has_answered() && !matches!(end, End::Breach(_));
            book.dialling
                .lost(end, lived, served, now, &self.options.backoff);
        }
        self.update(book);
        self.dial_if_wanted(book, self.queue.len());
    }

    /// Sets the state that follows from the connections and the dialling, and tells of a change.
    pub(super) fn update(&self, book: &mut Book) {
        let state = if book.closed {
            State::Shutdown
        } else if !self.open.load().is_empty() {
            State::Ready
        } else if book.dialling.is_failing() {
            State::TransientFailure
        } else if book.dialling.is_running() {
            State::Connecting
        } else {
            State::Idle
        };
        if state != book.state {
            book.state = state;
            book.since = Instant::now();
            if state != State::Ready {
                self.unready.notify_waiters();
            }
            self.flips.notify_one();
        }
    }

    /// Whether another connection should be dialled, for this many waiting calls.
    pub(super) fn wants_connection(&self, book: &Book, waiting: usize) -> bool {
        let now = Instant::now();
        let open = self.open.load();
        !book.closed
            && (book.dialling.is_owed()
                || open.len() < self.options.min
                || (waiting > 0 && open.len() < self.options.max)
                || open.iter().any(|it| self.is_over(it, now)))
    }

    /// Whether a connection is to be replaced: it is too old, or was made with certificates that are.
    pub(super) fn is_over(&self, pooled: &Pooled, now: Instant) -> bool {
        pooled.has_expired(now) || self.objects.manager().security.is_newer_than(&pooled.peer)
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let book = lock(&self.book);
        let open = self.open.load();
        let draining: Vec<_> = book.draining.iter().filter_map(Weak::upgrade).collect();
        let all = open.iter().chain(&draining);
        PoolStatus {
            state: book.state,
            since: book.since,
            last_error: book.dialling.last_error(),
            failed_dials: book.dialling.failures(),
            dials: book.dialling.totals(),
            next_dial: book.dialling.next(),
            open: open.len(),
            idle: self.objects.status().size.saturating_sub(open.len()),
            draining: draining.len(),
            in_flight: all.map(|it| it.calls()).sum(),
            room: self.room.available(),
            waiting: self.queue.len(),
            #[cfg(feature = "__tls")]
            peer: open.first().map(|it| it.peer.clone()).unwrap_or_default(),
            #[cfg(feature = "__tls")]
            identity: self.objects.manager().security.identity(),
            security_trouble: self.objects.manager().security.trouble(),
        }
    }
}

impl Pooled {
    fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The calls that have its slots.
    fn calls(&self) -> usize {
        // Two words, read one after the other: health checks come and go between.
        let questions = self.questions.load(Ordering::Relaxed);
        let slots = self.connection.slots().in_flight();
        slots.saturating_sub(questions)
    }

    /// Takes it out of deadpool's count.
    pub(super) fn detach(&self) {
        if let Some(object) = lock(&self.object).take() {
            drop(Object::take(object));
        }
    }
}

impl Observer for Pool {
    fn room_changed(&self, by: i64) {
        if let Ok(more) = usize::try_from(by) {
            self.room.gained(more);
        } else {
            let less = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX);
            self.room.lost(less);
        }
    }

    fn retired(&self, id: u64, lost_room: usize, end: &End) {
        self.room.lost(lost_room);
        let mut book = lock(&self.book);
        let open = self.open.load_full();
        let Some(pooled) = open.iter().find(|it| it.id == id) else {
            // It is at home, or on its way from the handshake to `admit`.
            let _ = self.objects.retain(|made, _| made.id != id);
            return;
        };
        let rest = open.iter().filter(|it| it.id != id).cloned().collect();
        self.open.store(Arc::new(rest));
        self.put_down(&mut book, pooled);
        self.lost(&mut book, pooled, Instant::now());
        drop(book);
        // Without the lock: a subscriber is foreign code.
        tracing::debug!(endpoint = %self.objects.manager().address, %end, "connection ended");
    }
}
