//! What a request body has yielded so far, and who reads it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// A body that is being read, and what is kept of it to be read again.
pub(super) struct Tape {
    /// Frames that are kept, or were looked at before any reader came for them.
    items: VecDeque<Item>,
    /// How many of `items` some reader has had.
    handed_out: usize,
    /// What those cost.
    cost: usize,
    limit: usize,
    committed: bool,
    source: Source,
    readers: Vec<Reader>,
    /// How many readers there have been.
    numbers: u64,
}

/// Somebody who reads the tape. Attempts of a hedged call read it at the same time.
struct Reader {
    number: u64,
    /// Where in `items` it is.
    next: usize,
    /// Wakes it, if it waits for the source.
    waiting: Option<Waker>,
}

/// The original body, until it ends.
pub(super) struct Source(Option<Body>);

/// A frame, or the end that isn't one.
#[derive(Clone)]
pub(super) enum Item {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    /// The body failed. Kept like a frame: a silent end would make a shorter request of it.
    Failed(Status),
}

impl Tape {
    pub(super) fn new(ahead: [Option<Item>; 2], source: Source, limit: usize) -> Self {
        Self {
            items: ahead.into_iter().flatten().collect(),
            handed_out: 0,
            cost: 0,
            limit,
            committed: false,
            source,
            readers: Vec::new(),
            numbers: 0,
        }
    }

    /// A new reader at the start in place of an `old` one, unless committed. Gives its number, and whom to wake.
    pub(super) fn start_over(&mut self, old: Option<u64>) -> Option<(u64, Vec<Waker>)> {
        if self.committed {
            return None;
        }
        let wake = self.wakers();
        self.readers.retain(|it| Some(it.number) != old);
        self.numbers += 1;
        self.readers.push(Reader {
            number: self.numbers,
            next: 0,
            waiting: None,
        });
        Some((self.numbers, wake))
    }

    /// The reader is gone. The source may have known its waker alone: gives those of the others.
    pub(super) fn leave(&mut self, number: u64) -> Vec<Waker> {
        self.readers.retain(|it| it.number != number);
        self.wakers()
    }

    /// The next frame for a reader, and whom to wake.
    pub(super) fn poll_next(
        &mut self,
        number: u64,
        cx: &mut Context<'_>,
    ) -> (Poll<Option<Item>>, Vec<Waker>) {
        let Some(index) = self.index(number) else {
            let stale = Status::cancelled("another attempt of the call reads the request now");
            return (Poll::Ready(Some(Item::Failed(stale))), Vec::new());
        };
        let mut wake = Vec::new();
        if self.readers[index].next == self.items.len() {
            match self.source.poll_next(cx) {
                Poll::Ready(item) => {
                    self.readers[index].waiting = None;
                    wake = self.wakers();
                    match item {
                        Some(item) => self.items.push_back(item),
                        None => return (Poll::Ready(None), wake),
                    }
                }
                Poll::Pending => {
                    match &mut self.readers[index].waiting {
                        Some(waker) => waker.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    return (Poll::Pending, wake);
                }
            }
        }
        let item = self.hand_out(index, &mut wake);
        (Poll::Ready(item), wake)
    }

    pub(super) fn is_end(&self, number: u64) -> bool {
        let at_end = |index: usize| self.readers[index].next == self.items.len();
        self.index(number).is_some_and(at_end) && self.source.is_ended()
    }

    pub(super) fn size_hint(&self, number: u64) -> SizeHint {
        let mut hint = SizeHint::new();
        if let Some(index) = self.index(number) {
            let next = self.readers[index].next;
            let ahead: u64 = self.items.range(next..).map(Item::bytes).sum();
            let rest = self.source.size_hint();
            hint.set_lower(rest.lower().saturating_add(ahead));
            if let Some(upper) = rest.upper() {
                hint.set_upper(upper.saturating_add(ahead));
            }
        }
        hint
    }

    pub(super) fn is_committed(&self) -> bool {
        self.committed
    }

    /// The next of `items`. One that no reader had before must fit into the limit to be kept.
    fn hand_out(&mut self, index: usize, wake: &mut Vec<Waker>) -> Option<Item> {
        if self.committed {
            return self.items.pop_front();
        }
        let reader = &mut self.readers[index];
        let item = self.items.get(reader.next)?.clone();
        reader.next += 1;
        let (number, next) = (reader.number, reader.next);
        if next > self.handed_out {
            self.handed_out = next;
            self.cost = self.cost.saturating_add(item.cost());
            if self.cost > self.limit {
                wake.extend(self.commit(Some(number)));
            }
        }
        Some(item)
    }

    /// Drops what this reader has behind it. It will be the last: nothing is kept from now on, and the others yield an
    /// error. Gives whom to wake.
    pub(super) fn commit(&mut self, number: Option<u64>) -> Vec<Waker> {
        if self.committed {
            return Vec::new();
        }
        self.committed = true;
        let wake = self.wakers();
        self.readers.retain(|it| Some(it.number) == number);
        let read = self.readers.first().map_or(self.items.len(), |it| it.next);
        self.items.drain(..read);
        self.items.shrink_to_fit();
        self.readers.iter_mut().for_each(|it| it.next = 0);
        wake
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.readers.iter().position(|it| it.number == number)
    }

    fn wakers(&mut self) -> Vec<Waker> {
        let readers = self.readers.iter_mut();
        readers.filter_map(|it| it.waiting.take()).collect()
    }
}

impl Source {
    pub(super) fn new(body: Body) -> Self {
        Self((!body.is_end_stream()).then_some(body))
    }

    /// The first two frames, as far as they are ready: with luck, all there is.
    pub(super) fn look_ahead(&mut self) -> [Option<Item>; 2] {
        // If the body isn't ready, the first reader polls it again and leaves its own waker.
        let mut context = Context::from_waker(Waker::noop());
        let mut ahead = [None, None];
        for item in &mut ahead {
            let Poll::Ready(next) = self.poll_next(&mut context) else {
                break;
            };
            *item = next;
        }
        ahead
    }

    pub(super) fn is_ended(&self) -> bool {
        self.0.is_none()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let item = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => None,
            Some(Err(status)) => Some(Item::Failed(status)),
            Some(Ok(frame)) => Some(Item::from_frame(frame)),
        };
        if !matches!(item, Some(Item::Data(_))) || body.is_end_stream() {
            self.0 = None;
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Item {
    fn from_frame(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            Err(frame) => frame.into_trailers().map_or_else(
                |_| {
                    Self::Failed(Status::internal(
                        "the request body has a frame of unknown kind",
                    ))
                },
                |trailers| Self::Trailers(Box::new(trailers)),
            ),
        }
    }

    pub(super) fn into_frame(self) -> Result<Frame<Bytes>, Status> {
        match self {
            Self::Data(data) => Ok(Frame::data(data)),
            Self::Trailers(trailers) => Ok(Frame::trailers(*trailers)),
            Self::Failed(status) => Err(status),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) | Self::Failed(_) => 0,
        }
    }

    /// What keeping it costs: the bytes, and enough besides that many tiny frames can't evade the limit.
    pub(super) fn cost(&self) -> usize {
        const FRAME: usize = 64;
        const { assert!(size_of::<Item>() <= FRAME) };
        FRAME
            + if let Self::Data(data) = self {
                data.len()
            } else {
                0
            }
    }
}
