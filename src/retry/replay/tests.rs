use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use http::HeaderMap;
use http_body::Body as _;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tonic::codec::{EncodeBody, EncodeBuf, Encoder};

use super::*;

const PLENTY: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Data(Vec<u8>),
    Trailers(String),
    Fail(String),
    /// Not ready, once.
    Wait,
}

use Step::{Data, Fail, Trailers, Wait};

/// A body that follows a script. It foresees its end and size as buffered bodies do, or, like tonic's,
/// it doesn't.
struct Script {
    steps: VecDeque<Step>,
    foresees: bool,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match self.steps.pop_front() {
            Some(Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Trailers(value)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("end", value.parse().unwrap());
                Some(Ok(Frame::trailers(trailers)))
            }
            Some(Fail(message)) => Some(Err(Status::data_loss(message))),
            Some(Wait) => return Poll::Pending,
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.foresees && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.foresees {
            SizeHint::with_exact(bytes_of(self.steps.iter()))
        } else {
            SizeHint::default()
        }
    }
}

fn script(steps: &[Step]) -> Body {
    let steps = steps.iter().cloned().collect();
    Body::new(Script {
        steps,
        foresees: false,
    })
}

fn bytes_of<'a>(steps: impl Iterator<Item = &'a Step>) -> u64 {
    steps
        .map(|step| {
            if let Data(data) = step {
                data.len() as u64
            } else {
                0
            }
        })
        .sum()
}

fn data(length: usize) -> Step {
    Data((0..length).map(|i| i as u8).collect())
}

fn poll(body: &mut AttemptBody, waker: &Waker) -> Poll<Option<Step>> {
    let next = Pin::new(body).poll_frame(&mut Context::from_waker(waker));
    next.map_ok(|frame| match frame.into_data() {
        Ok(data) => Data(data.into()),
        Err(frame) => Trailers(
            frame.into_trailers().unwrap()["end"]
                .to_str()
                .unwrap()
                .into(),
        ),
    })
    .map(|next| next.map(|next| next.unwrap_or_else(|status| Fail(status.message().into()))))
}

fn next(body: &mut AttemptBody) -> Option<Step> {
    for _ in 0..100 {
        if let Poll::Ready(next) = poll(body, Waker::noop()) {
            return next;
        }
    }
    panic!("the script never goes on");
}

fn next_bytes(body: &mut AttemptBody) -> Bytes {
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
        other => panic!("no data frame: {other:?}"),
    }
}

/// Reads to the end, and sees that end and size are foreseen rightly on the way.
fn read(body: &mut AttemptBody) -> Vec<Step> {
    let (mut steps, mut foreseen) = (Vec::new(), Vec::new());
    loop {
        let end = body.is_end_stream();
        foreseen.push((bytes_of(steps.iter()), body.size_hint()));
        let Some(step) = next(body) else { break };
        assert!(!end, "{step:?} after the end");
        steps.push(step);
    }
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    let total = bytes_of(steps.iter());
    for (before, hint) in foreseen {
        assert!(hint.lower() <= total - before);
        assert!(hint.upper().is_none_or(|upper| upper >= total - before));
    }
    steps
}

fn is_whole(replay: &Replay) -> bool {
    matches!(replay.origin, Origin::Whole(_))
}

#[test]
fn short_bodies_are_known_whole() {
    let end = || Trailers("over".into());
    for steps in [
        vec![],
        vec![data(5)],
        vec![data(5), end()],
        vec![end()],
        vec![Fail("at once".into())],
        vec![data(5), Fail("later".into())],
    ] {
        let mut replay = Replay::new(script(&steps), PLENTY);
        assert!(is_whole(&replay));
        for _ in 0..3 {
            let mut reader = replay.reader().unwrap();
            assert_eq!(reader.size_hint().exact(), Some(bytes_of(steps.iter())));
            assert_eq!(read(&mut reader), steps);
        }
        assert!(!replay.is_committed());
    }
    assert!(
        Replay::new(Body::empty(), 0)
            .reader()
            .unwrap()
            .is_end_stream()
    );
}

#[test]
fn a_unary_request_of_tonic_is_known_whole() {
    struct Raw;
    impl Encoder for Raw {
        type Item = Vec<u8>;
        type Error = Status;
        fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
            bytes::BufMut::put_slice(buffer, &item);
            Ok(())
        }
    }
    let messages = tokio_stream::once(Ok(vec![7; 1000]));
    let mut replay = Replay::new(
        Body::new(EncodeBody::new_client(Raw, messages, None, None)),
        PLENTY,
    );
    assert!(is_whole(&replay));
    for _ in 0..2 {
        let mut reader = replay.reader().unwrap();
        assert_eq!(reader.size_hint().exact(), Some(1005));
        assert_eq!(next_bytes(&mut reader)[..6], [0, 0, 0, 3, 232, 7]);
        assert!(
            reader.is_end_stream(),
            "which tonic's own body does not say"
        );
    }
}

#[test]
fn long_and_waiting_bodies_are_replayed_to_their_trailers() {
    let end = || Trailers("over".into());
    for steps in [
        vec![data(3), data(0), data(5), data(1), end()],
        vec![Wait, data(3), end()],
        vec![Wait, Wait, data(3)],
        vec![data(3), Wait, data(4), Wait, Wait, end()],
        vec![data(3), Wait],
        vec![data(3), data(4), data(5), Fail("broken".into())],
    ] {
        let frames: Vec<_> = steps
            .iter()
            .filter(|&step| *step != Wait)
            .cloned()
            .collect();
        let mut replay = Replay::new(script(&steps), PLENTY);
        assert!(!is_whole(&replay));
        for _ in 0..3 {
            assert_eq!(read(&mut replay.reader().unwrap()), frames);
        }
        assert!(!replay.is_committed());
    }
}

#[test]
fn a_buffered_body_foresees_its_size() {
    let steps = [data(10), data(20), data(30), data(40)];
    let body = Script {
        steps: steps.clone().into(),
        foresees: true,
    };
    let mut replay = Replay::new(Body::new(body), PLENTY);
    let mut reader = replay.reader().unwrap();
    for left in [100, 90, 70, 40] {
        assert_eq!(reader.size_hint().exact(), Some(left));
        assert!(!reader.is_end_stream());
        next(&mut reader).unwrap();
    }
    assert!(reader.is_end_stream(), "without another poll");
    assert_eq!(replay.reader().unwrap().size_hint().exact(), Some(100));
}

#[test]
fn an_abandoned_reader_costs_the_next_one_nothing() {
    let steps: Vec<_> = (1..=6).map(data).collect();
    let mut replay = Replay::new(script(&steps), PLENTY);
    for cut in [0, 1, 4, 2, 6] {
        let mut reader = replay.reader().unwrap();
        for step in &steps[..cut] {
            assert_eq!(next(&mut reader).as_ref(), Some(step));
        }
    }
    assert_eq!(read(&mut replay.reader().unwrap()), steps);
}

#[test]
fn outgrowing_the_limit_commits_and_keeps_nothing() {
    let steps = [
        data(100),
        data(100),
        data(100),
        data(100),
        Trailers("over".into()),
    ];
    let mut replay = Replay::new(script(&steps), 2 * (100 + 64));
    let mut reader = replay.reader().unwrap();
    let mut had = vec![next_bytes(&mut reader), next_bytes(&mut reader)];
    assert!(!replay.is_committed());
    assert!(had.iter().all(|data| !data.is_unique()), "kept");
    drop(reader);

    let mut reader = replay.reader().unwrap();
    had.extend([next_bytes(&mut reader), next_bytes(&mut reader)]);
    assert!(!replay.is_committed());
    had.push(next_bytes(&mut reader));
    assert!(replay.is_committed());
    assert!(replay.reader().is_none());
    had.drain(..2);
    assert!(had.iter().all(Bytes::is_unique), "nothing is kept");
    assert!(next_bytes(&mut reader).is_unique());
    assert_eq!(read(&mut reader), [Trailers("over".into())]);
}

#[test]
fn the_limit_counts_64_bytes_per_frame() {
    let fits = |steps: &[Step], limit| {
        let mut replay = Replay::new(script(steps), limit);
        read(&mut replay.reader().unwrap());
        replay.reader().is_some()
    };
    let tiny = vec![data(1); 10];
    assert!(fits(&tiny, 650) && !fits(&tiny, 649));
    assert!(fits(&[data(1000)], 1064) && !fits(&[data(1000)], 1063));
    assert!(fits(&[], 0));
    assert!(!fits(&[data(1)], 0) && !fits(&[data(0)], 0));
}

#[test]
fn nothing_commits_before_it_is_read() {
    let steps = [data(1000), data(1)];
    let mut replay = Replay::new(script(&steps), 0);
    for _ in 0..3 {
        drop(replay.reader().unwrap());
        assert!(!replay.is_committed());
    }
    let mut reader = replay.reader().unwrap();
    assert!(next_bytes(&mut reader).is_unique());
    assert!(replay.is_committed());
    assert_eq!(read(&mut reader), [data(1)]);
}

#[test]
fn dropping_the_replay_frees_what_was_read() {
    let steps: Vec<_> = (1..=4).map(data).collect();
    let mut replay = Replay::new(script(&steps), PLENTY);
    read(&mut replay.reader().unwrap());
    let mut reader = replay.reader().unwrap();
    let first = next_bytes(&mut reader);
    assert!(!first.is_unique());
    drop(replay);
    assert!(first.is_unique());
    assert_eq!(reader.size_hint().exact(), Some(9));
    assert!(next_bytes(&mut reader).is_unique());
    assert_eq!(read(&mut reader), steps[2..]);
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stale_reader_is_woken_and_fails_and_steals_nothing() {
    let steps = [data(1), Wait, Wait, data(2), data(3)];
    let mut replay = Replay::new(script(&steps), PLENTY);
    let mut stale = replay.reader().unwrap();
    next(&mut stale).unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut stale, &Arc::clone(&wakes).into()).is_pending());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);

    let mut reader = replay.reader().unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let error = Some(Fail(
        "another attempt of the call reads the request now".into(),
    ));
    assert_eq!(next(&mut stale), error);
    assert_eq!(next(&mut reader), Some(data(1)));
    assert_eq!(next(&mut stale), error);
    assert!(!stale.is_end_stream());
    assert_eq!(stale.size_hint().exact(), None);
    assert_eq!(read(&mut reader), [data(2), data(3)]);
    assert!(
        !stale.is_end_stream(),
        "an end would make a shorter request"
    );
    assert_eq!(next(&mut stale), error);
}

#[test]
fn a_reader_may_move_to_another_task() {
    fn movable<T: Send + Unpin + 'static>() {}
    movable::<AttemptBody>();
    movable::<Replay>();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..100).prop_map(Data),
        1 => Just(Wait),
    ];
    let last = prop_oneof![
        Just(None),
        Just(Some(Trailers("over".into()))),
        Just(Some(Fail("broken".into()))),
    ];
    (prop::collection::vec(step, 0..20), last).prop_map(|(mut steps, last)| {
        steps.extend(last);
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(0x4e91a7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every reader sees the original from its start, as far as it reads; there is a next one exactly
    /// until the frames read exceed the limit, and then the last one goes on to the end.
    #[test]
    fn each_read_equals_the_original(
        steps in steps(),
        foresees in any::<bool>(),
        cuts in prop::collection::vec(0..25_usize, 0..6),
        limit in prop_oneof![Just(PLENTY), 0..2500_usize],
    ) {
        let frames: Vec<_> = steps.iter().filter(|&step| *step != Wait).cloned().collect();
        let cost = |count: usize| bytes_of(frames[..count].iter()) as usize + 64 * count;
        let body = Body::new(Script { steps: steps.into(), foresees });
        let mut replay = Replay::new(body, limit);
        let mut furthest = 0;
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let mut reader = replay.reader().unwrap();
            let cut = cut.min(frames.len());
            for frame in &frames[..cut] {
                let had = next(&mut reader);
                prop_assert_eq!(had.as_ref(), Some(frame));
            }
            furthest = furthest.max(cut);
            prop_assert_eq!(replay.is_committed(), cost(furthest) > limit);
            if replay.is_committed() {
                prop_assert!(replay.reader().is_none());
                prop_assert_eq!(read(&mut reader), &frames[cut..]);
                break;
            }
            if cut == frames.len() {
                prop_assert_eq!(read(&mut reader), []);
            }
        }
    }
}

#[test]
fn shared_readers_read_at_the_same_time() {
    let steps = [data(3), Wait, data(4), data(5), Trailers("over".into())];
    let mut one = Replay::new(script(&steps), PLENTY);
    let mut other = one.share();
    let (mut first, mut second) = (one.reader().unwrap(), other.reader().unwrap());
    assert_eq!(next(&mut first), Some(data(3)));
    assert_eq!(next(&mut first), Some(data(4)));
    assert_eq!(next(&mut second), Some(data(3)));
    // A new reader of the one leaves that of the other alone.
    let mut again = one.reader().unwrap();
    assert!(matches!(next(&mut first), Some(Fail(_))));
    assert_eq!(next(&mut second), Some(data(4)));
    assert_eq!(next(&mut again), Some(data(3)));
    other.commit();
    assert!(matches!(next(&mut again), Some(Fail(_))));
    assert!(one.reader().is_none());
    drop((one, other));
    assert_eq!(read(&mut second), [data(5), Trailers("over".into())]);
}

#[test]
fn whoever_outgrows_the_limit_reads_on_alone() {
    let steps = [data(3), data(4), data(5)];
    let mut one = Replay::new(script(&steps), 3 + 64 + 4 + 64);
    let mut other = one.share();
    let (mut first, mut second) = (one.reader().unwrap(), other.reader().unwrap());
    assert_eq!(next(&mut first), Some(data(3)));
    assert_eq!(read(&mut second), steps);
    assert!(one.is_committed());
    assert!(matches!(next(&mut first), Some(Fail(_))));
}

#[test]
fn a_reader_that_goes_wakes_the_others() {
    let mut one = Replay::new(script(&[Wait, Wait, Wait, Wait, data(3)]), PLENTY);
    let mut other = one.share();
    let (mut first, mut second) = (one.reader().unwrap(), other.reader().unwrap());
    let woken = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(poll(&mut first, &waker).is_pending());
    // From here on the source knows this one only.
    assert!(poll(&mut second, Waker::noop()).is_pending());
    drop(second);
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(next(&mut first), Some(data(3)));
}
