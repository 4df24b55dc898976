//! Score card rows 21 to 23: streams refused, reset and ended without a status, under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use rows::calls::{call, request};
use rows::rig::{Rig, SINGLE_IDS, STREAMS};
use support::frames::{Frame, code};
use support::raw_serve::ServedPeer;
use support::reaction::{Reaction, RequestInfo};
use support::report::wrong;
use support::response;
use tonic::{Code, Request, Status};
use trunkline::Channel;
use trunkline_proto::echo_client::EchoClient;

/// Every request is refused where it comes first, and answered where it comes next: a free resend each, which no policy
/// and no budget is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_21_refused_on_every_first_try() {
    let tries = Arc::new(Mutex::new(BTreeMap::<u64, u64>::new()));
    let counting = Arc::clone(&tries);
    let rig = Rig::start_raw(STREAMS, move |_, request| {
        let id = request.echo().unwrap().id;
        let tries = *counting
            .lock()
            .unwrap()
            .entry(id)
            .and_modify(|it| *it += 1)
            .or_insert(1);
        match tries {
            1 => Reaction::refuse(),
            _ => Reaction::echo(request, "raw"),
        }
    });
    let rig = rig.await;
    let reports = rig.load().finish().await;

    let stats = [&rig.retrying, &rig.single].map(|side| side.channel.stats());
    let tries = std::mem::take(&mut *tries.lock().unwrap());
    let figures = [
        ("resends", stats[0].resends + stats[1].resends),
        ("retries", stats[0].retries + stats[1].retries),
    ];
    rig.score("21", &reports, None, &figures).await;
    reports.none_failed();
    for stats in stats {
        assert_eq!((stats.retries, stats.resends), (0, stats.calls));
    }
    assert!(tries.values().all(|&tries| tries == 2), "{tries:?}");
}

/// How much of the answer comes before its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Headers,
    HalfMessage,
    Message,
    All,
}

/// What becomes of the call with this id.
#[derive(Clone, Copy, Debug)]
struct Plan {
    part: Part,
    streaming: bool,
    /// Chooses among the ways in which the stream can end.
    variant: usize,
}

impl Plan {
    fn of(id: u64) -> Self {
        let parts = [Part::All, Part::Headers, Part::HalfMessage, Part::Message];
        Self {
            part: parts[(id % 4) as usize],
            streaming: id / 4 % 2 == 1,
            variant: (id / 8) as usize,
        }
    }

    /// The answer up to the point where it breaks off; all of it for [`Part::All`].
    fn frames(self, request: &RequestInfo) -> Vec<Frame> {
        let Reaction::Answer(reply) = Reaction::echo(request, "raw") else {
            unreachable!("an echo is an answer");
        };
        let mut frames = response::ok(request.stream, &reply);
        if self.part != Part::All {
            frames.truncate(if self.part == Part::Headers { 1 } else { 2 });
        }
        if self.part == Part::HalfMessage {
            let half = frames[1].payload.len() / 2;
            frames[1].payload.truncate(half);
        }
        frames
    }
}

/// A call whose answer breaks off as its plan says. It is as it should be when it fails with one of these codes, and
/// what came whole before was handed over.
async fn broken_off(channel: Channel, id: u64, codes: &[Code]) -> Result<(), Status> {
    let plan = Plan::of(id);
    if plan.part == Part::All {
        return call(channel, id).await;
    }
    let mut client = EchoClient::new(channel);
    let mut messages = 0;
    let status = if plan.streaming {
        let mut replies = match client.server_stream(Request::new(request(id))).await {
            Ok(replies) => replies.into_inner(),
            Err(status) => return Err(status),
        };
        let status = loop {
            match replies.message().await {
                Ok(Some(_)) => messages += 1,
                Ok(None) => return Err(wrong("a stream ended as if all of it had come")),
                Err(status) => break status,
            }
        };
        if messages != u32::from(plan.part == Part::Message) {
            return Err(wrong("not the messages that came"));
        }
        // Tonic itself finds two faults in half a message without a status.
        if matches!(replies.message().await, Ok(Some(_))) {
            return Err(wrong("more after the error"));
        }
        status
    } else {
        match client.unary(Request::new(request(id))).await {
            Ok(_) => return Err(wrong("OK without a status")),
            Err(status) => status,
        }
    };
    if codes.contains(&status.code()) {
        Ok(())
    } else {
        Err(status)
    }
}

/// The codes of `PROTOCOL-HTTP2.md`, by the number of HTTP/2's. STREAM_CLOSED has none there, and HTTP_1_1_REQUIRED is
/// not named.
const CODE_OF_RESET: [Code; 14] = {
    let mut codes = [Code::Internal; 14];
    codes[code::REFUSED_STREAM as usize] = Code::Unavailable;
    codes[code::CANCEL as usize] = Code::Cancelled;
    codes[code::ENHANCE_YOUR_CALM as usize] = Code::ResourceExhausted;
    codes[code::INADEQUATE_SECURITY as usize] = Code::PermissionDenied;
    codes
};

/// Three of four streams are reset after their response began, with every code there is. Each such call fails with the
/// code that gRPC gives to it, none is repeated, and the others on their connections don't notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_22_reset_after_the_response_began() {
    let rig = Rig::start_raw(STREAMS, |_, request| {
        let plan = Plan::of(request.echo().unwrap().id);
        let mut frames = plan.frames(request);
        if plan.part != Part::All {
            frames.push(Frame::rst(request.stream, (plan.variant % 14) as u32));
        }
        Reaction::Frames(frames)
    });
    let rig = rig.await;
    let broken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&broken);
    let load = rig.load_with(move |channel, id| {
        let counted = Arc::clone(&counted);
        async move {
            let code = CODE_OF_RESET[Plan::of(id).variant % 14];
            broken_off(channel, id, &[code]).await?;
            counted.fetch_add(u64::from(Plan::of(id).part != Part::All), SeqCst);
            Ok(())
        }
    });
    let reports = load.finish().await;

    score_broken("22", rig, reports, broken.load(SeqCst)).await;
}

/// Three of four responses end without a gRPC status: in headers, in the middle of a message, after it, or with trailers
/// that hold none. No such call is OK, nor does a stream look as if it had come to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_23_end_without_a_status() {
    let rig = Rig::start_raw(STREAMS, |_, request| {
        let plan = Plan::of(request.echo().unwrap().id);
        let mut frames = plan.frames(request);
        let stream = request.stream;
        if plan.part != Part::All {
            match plan.variant % 3 {
                0 => {
                    let last = frames.pop().unwrap();
                    frames.push(ended(last));
                }
                1 => frames.push(Frame::data(stream, "", true)),
                _ => {
                    let trailers = response::header_block(&[("checksum", "17")]);
                    frames.push(Frame::headers(stream, trailers, true));
                }
            }
        }
        Reaction::Frames(frames)
    });
    let rig = rig.await;
    let broken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&broken);
    let load = rig.load_with(move |channel, id| {
        let counted = Arc::clone(&counted);
        async move {
            broken_off(channel, id, &[Code::Unknown, Code::Internal]).await?;
            counted.fetch_add(u64::from(Plan::of(id).part != Part::All), SeqCst);
            Ok(())
        }
    });
    let reports = load.finish().await;

    score_broken("23", rig, reports, broken.load(SeqCst)).await;
}

/// The same frame as the last one of its stream.
fn ended(frame: Frame) -> Frame {
    use support::frames::{flag, kind};

    assert!(matches!(frame.kind, kind::DATA | kind::HEADERS));
    Frame {
        flags: frame.flags | flag::END_STREAM,
        ..frame
    }
}

/// The line, and what both rows assert: three of four calls broke off as planned, and nothing was sent twice.
async fn score_broken(row: &str, rig: Rig<ServedPeer>, reports: rows::rig::Reports, broken: u64) {
    let seen: Vec<_> = rig
        .servers
        .iter()
        .map(|peer| Arc::clone(peer.seen()))
        .collect();
    let stats = [&rig.retrying, &rig.single].map(|side| side.channel.stats());
    let repeats: u64 = stats.iter().map(|it| it.resends + it.retries).sum();
    let calls: u64 = stats.iter().map(|it| it.calls).sum();
    let requests: u64 = seen.iter().map(|it| it.requests()).sum();
    let connections: u64 = seen.iter().map(|it| it.connections()).sum();
    let figures = [
        ("broken_off", broken),
        ("repeats", repeats),
        ("connections", connections),
    ];
    rig.score(row, &reports, None, &figures).await;
    reports.none_failed();
    let planned = |first: u64| {
        (first..)
            .take(calls as usize / 2)
            .filter(|id| !id.is_multiple_of(4))
            .count()
    };
    assert_eq!(broken, (planned(1) + planned(SINGLE_IDS)) as u64);
    assert_eq!((repeats, requests), (0, calls));
    assert_eq!(connections, 6, "no connection is lost by it");
}
