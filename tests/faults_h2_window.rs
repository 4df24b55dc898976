//! Score card row 27: a peer that gives no flow window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rows::beside::compare;
use rows::calls::request;
use rows::cpu::cpu_time;
use rows::rig::{LIMIT, Rig, SINGLE_IDS, STREAMS};
use rows::served::NAMES;
use support::body::post;
use support::frames::setting;
use support::reaction::{Reaction, RequestInfo};
use support::wait::{wait_until, within};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::{Request, Status};
use trunkline::{Channel, Error};
use trunkline_proto::echo_client::EchoClient;

/// HTTP/2's initial window.
const FULL: u32 = 65_535;
const HANDLER: Duration = Duration::from_millis(5);
/// Calls that have the time to wait for the window; about a third of them must.
const PATIENT: u64 = 30;

/// Calls on a peer that takes no bytes of their bodies end with their deadline, those on others notice nothing, and what
/// waits for a window uses no processor. Once it opens, what waited goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_27_zero_window() {
    let window = Arc::new(AtomicU32::new(FULL));
    let rig = Rig::start_raw(STREAMS, rule(Arc::clone(&window))).await;
    let (mut reports, p99s) = compare(&rig, || window.store(0, SeqCst), || ()).await;

    let channel = &rig.single.channel;
    let in_flight = || {
        channel
            .status()
            .endpoints
            .iter()
            .map(|it| it.in_flight)
            .collect::<Vec<_>>()
    };
    wait_until(LIMIT, || in_flight() == [0, 0, 0]).await;
    let answered = Arc::new(AtomicU64::new(0));
    let mut patient = JoinSet::new();
    for id in SINGLE_IDS * 2..SINGLE_IDS * 2 + PATIENT {
        let call = patient_call(channel.clone(), id);
        let answered = Arc::clone(&answered);
        patient.spawn(async move {
            let result = call.await;
            answered.fetch_add(1, SeqCst);
            (id, result)
        });
    }
    let stuck = || PATIENT - answered.load(SeqCst);
    let others_answered = || in_flight() == [stuck() as usize, 0, 0] && stuck() < PATIENT;
    wait_until(LIMIT, others_answered).await;
    let stuck = stuck();
    let (began, used) = (Instant::now(), cpu_time());
    // Not a wait for something, but the time that is measured.
    sleep(rows::duration() / 6).await;
    let permille = (cpu_time() - used).as_micros() * 1000 / began.elapsed().as_micros();
    assert_eq!(in_flight(), [stuck as usize, 0, 0]);

    window.store(FULL, SeqCst);
    for side in [&rig.retrying, &rig.single] {
        tell(&side.channel).await;
    }
    let opened = Instant::now();
    for (id, result) in within(LIMIT, "the window", patient.join_all()).await {
        assert!(result.is_ok(), "{id}: {result:?}");
        reports.single.count(id, result);
    }
    let recovery = opened.elapsed();

    let closed = rig.address(0);
    let mut figures = p99s.figures();
    figures.extend([("cpu_permille", permille as u64), ("stuck", stuck)]);
    rig.score("27", &reports, Some(recovery), &figures).await;
    let failed = [&reports.retrying.failed, &reports.single.failed];
    for failure in failed.into_iter().flatten() {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert_eq!(error.endpoint(), Some(&*closed), "{error:?}");
    }
    assert!(
        failed.iter().all(|it| !it.is_empty()),
        "the window was open"
    );
    p99s.others_are_unchanged();
    let most = if rows::is_strict() { 50 } else { 300 };
    assert!(permille < most, "{permille} thousandths of a core");
}

/// The first peer gives each connection this window, with an answer.
fn rule(window: Arc<AtomicU32>) -> impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync {
    let told = Mutex::new(BTreeMap::new());
    move |peer, request| {
        let answer = match request.message {
            Some(_) => Reaction::echo(request, NAMES[peer]),
            None => Reaction::Answer(Bytes::new()),
        };
        let window = window.load(SeqCst);
        let told = |window| told.lock().unwrap().insert(request.connection, window);
        if peer == 0 && told(window).unwrap_or(FULL) != window {
            return answer.after_settings(&[(setting::INITIAL_WINDOW_SIZE, window)]);
        }
        answer.after(HANDLER)
    }
}

/// Has every peer answer something that needs no window.
async fn tell(channel: &Channel) {
    for _ in NAMES {
        channel.send(post(Body::empty())).await.unwrap();
    }
}

/// A call that has time. Every other one streams its request.
async fn patient_call(channel: Channel, id: u64) -> Result<(), Status> {
    const TIME: Duration = Duration::from_secs(3600);
    let mut client = EchoClient::new(channel);
    if id.is_multiple_of(2) {
        let mut request = Request::new(request(id));
        request.set_timeout(TIME);
        return client.unary(request).await.map(drop);
    }
    // Tonic would make one frame of short messages, and a request that is one frame is sent as a whole.
    let mut long = request(id);
    long.payload = vec![7; 48 * 1024];
    let messages = tokio_stream::iter([long.clone(), long]);
    let mut request = Request::new(messages);
    request.set_timeout(TIME);
    client.client_stream(request).await.map(drop)
}
