//! Score card row 58: servers die in the middle of streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rows::limit;
use rows::rig::{LIMIT, Reports, Rig, SINGLE_IDS};
use support::journal::Journal;
use support::load::{Load, RunningLoad};
use support::report::{Failure, wrong};
use support::wait::wait_until;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use trunkline::{CallOptions, Channel, Error, State};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

/// Messages of a stream.
const MESSAGES: usize = 16;

/// The time between two messages.
const PAUSE: Duration = Duration::from_millis(25);

/// The time from the death of a server to the error.
const MOMENT: Duration = Duration::from_millis(200);

/// More than the replay buffer holds.
const LARGE: usize = 300 << 10;

/// Streams per second on each channel.
const RATE: f64 = 30.0;

/// What a call is, by its id.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    /// Messages both ways, in turns.
    Bidi,
    /// Messages that the replay buffer holds, and one reply.
    Short,
    /// Messages of which the first is too large to be kept.
    Long,
}

impl Sort {
    fn of(id: u64) -> Self {
        // As many as there are servers would give each of those a sort of its own.
        [Self::Bidi, Self::Short, Self::Bidi, Self::Short, Self::Long][(id % 5) as usize]
    }
}

/// What was seen of streams whose response began.
#[derive(Clone, Debug)]
struct Watch {
    journals: Vec<Arc<Journal>>,
    /// How often each had been handled by then.
    started: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Watch {
    fn handled(&self, id: u64) -> u64 {
        let times = self.journals.iter().map(|it| it.times_handled(id));
        times.sum()
    }

    fn start(&self, id: u64) {
        let handled = self.handled(id);
        self.started.lock().unwrap().insert(id, handled);
    }
}

/// Streams that a server's death cuts off end with one error each and never as if they had come to their end. Once its
/// response has begun, or its request is larger than the replay buffer, a stream is not sent again; nor is any that may
/// not be repeated. A request that the buffer holds may be, and is then answered in full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_58_servers_killed_in_the_middle_of_streams() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let journals = rig.servers.iter().map(|it| Arc::clone(it.journal()));
    let watch = Watch {
        journals: journals.collect(),
        started: Arc::default(),
    };
    let load = |channel: &Channel, first_id| {
        let (channel, watch) = (channel.clone(), watch.clone());
        let load = Load::new(RATE)
            .duration(rows::duration())
            .first_id(first_id)
            .deadline(LIMIT);
        load.start(move |id| stream(channel.clone(), id, watch.clone()))
    };
    let retrying = load(&rig.retrying.channel, 1);
    let single = load(&rig.single.channel, SINGLE_IDS);
    let mut kills = Vec::new();
    let mut in_flight = [0; 2];
    for (turn, nth) in (1..).zip([0, 1, 2, 0]) {
        let at = rows::duration() * turn / 6;
        wait_until(rows::duration() * 2, || single.elapsed() >= at).await;
        kills.push((rig.address(nth), single.elapsed()));
        let cut_off = kill(&mut rig, nth, [&retrying, &single]).await;
        in_flight = [in_flight[0] + cut_off[0], in_flight[1] + cut_off[1]];
        rig.servers[nth].restart();
        rig.ready(nth, LIMIT).await;
    }
    let reports = Reports {
        retrying: retrying.finish().await,
        single: single.finish().await,
    };

    let count = |failed: &[Failure], sort| {
        let failed = failed.iter().filter(|it| Sort::of(it.id) == sort);
        failed.count() as u64
    };
    let (retrying, single) = (&reports.retrying.failed, &reports.single.failed);
    let started = std::mem::take(&mut *watch.started.lock().unwrap());
    let ids = (1..).take(reports.retrying.sent as usize);
    let repeated = ids.filter(|id| watch.handled(*id) > 1).count();
    let figures = [
        ("in_flight", in_flight[1]),
        ("in_flight_idempotent", in_flight[0]),
        ("failed_bidi", count(single, Sort::Bidi)),
        ("failed_short", count(single, Sort::Short)),
        ("failed_long", count(single, Sort::Long)),
        ("failed_idempotent_bidi", count(retrying, Sort::Bidi)),
        ("failed_idempotent_long", count(retrying, Sort::Long)),
        ("repeated", repeated as u64),
        ("bidi_begun", started.len() as u64),
    ];
    let recovery = reports.recovery(kills.last().unwrap().1);
    rig.score("58", &reports, Some(recovery), &figures).await;
    for (failed, in_flight) in [(retrying, in_flight[0]), (single, in_flight[1])] {
        assert!(
            failed.len() as u64 <= in_flight,
            "{in_flight} in flight: {failed:?}"
        );
        for failure in failed {
            says_so(failure, &kills);
        }
    }
    // Every bidirectional stream that failed had begun, or it would have been repeated; none was after it had.
    assert_eq!(count(retrying, Sort::Short), 0, "{retrying:?}");
    assert!(repeated > 0, "no stream was repeated");
    for failure in retrying {
        match Sort::of(failure.id) {
            Sort::Bidi => assert!(started.contains_key(&failure.id), "{failure:?}"),
            _ => {
                let text = failure.status.message();
                assert!(text.contains("retry.replay_buffer"), "{failure:?}");
                assert_eq!(watch.handled(failure.id), 1, "{failure:?}");
            }
        }
    }
    for (id, handled) in started {
        assert_eq!(watch.handled(id), handled, "{id} was sent again");
    }
    // Some of each sort were cut off.
    assert!(count(single, Sort::Short) > 0, "{single:?}");
    for sort in [Sort::Bidi, Sort::Long] {
        assert!(count(single, sort) + count(retrying, sort) > 0, "{sort:?}");
    }
}

/// A call of the sort that its id says, checked to its end.
async fn stream(channel: Channel, id: u64, watch: Watch) -> Result<(), Status> {
    let mut client = EchoClient::new(channel);
    if Sort::of(id) == Sort::Bidi {
        return in_turns(client, id, watch).await;
    }
    let paced = tokio_stream::iter(messages(id)).then(|message| async {
        sleep(PAUSE).await;
        message
    });
    let reply = client.client_stream(unhurried(paced)).await?.into_inner();
    let expected: Vec<u8> = messages(id).flat_map(|it| it.payload).collect();
    if reply.id != id || reply.payload != expected {
        return Err(wrong("not what was sent"));
    }
    Ok(())
}

/// A bidirectional stream: each message is sent when the one before was answered.
async fn in_turns(mut client: EchoClient<Channel>, id: u64, watch: Watch) -> Result<(), Status> {
    let (send, receive) = mpsc::channel(MESSAGES);
    let mut send = Some(send);
    let mut put = |message| match message {
        Some(message) => send.as_ref().unwrap().try_send(message).is_ok(),
        None => send.take().is_none(),
    };
    let mut sending = messages(id);
    put(sending.next());
    let request = unhurried(ReceiverStream::new(receive));
    let replies = client.bidi_stream(request).await?;
    watch.start(id);
    let mut replies = replies.into_inner();
    for (nth, message) in (0..).zip(messages(id)) {
        match replies.message().await {
            Ok(Some(reply)) => {
                if (reply.id, reply.sequence, reply.payload) != (id, nth, message.payload) {
                    return Err(wrong("the reply to another message"));
                }
            }
            Ok(None) => return Err(wrong("the end before the last reply")),
            Err(status) => {
                // Tonic 0.14.9 tells the error of a body twice. There is no other, and no message.
                let again = replies.message().await;
                let same = |it: &Status| it.message() == status.message();
                let ended = matches!(replies.message().await, Ok(None));
                if !ended || matches!(again, Ok(Some(_))) || !again.as_ref().err().is_none_or(same)
                {
                    return Err(wrong("something after the error"));
                }
                return Err(status);
            }
        }
        put(sending.next());
    }
    match replies.message().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(wrong("a reply too many")),
        Err(status) => Err(status),
    }
}

/// A request with more time than its stream takes on the slowest machine: what cuts it off shall not be its deadline.
fn unhurried<T>(messages: T) -> Request<T> {
    let mut request = Request::new(messages);
    let options = CallOptions::new().timeout(LIMIT);
    request.extensions_mut().insert(options);
    request
}

/// The messages of the call with this id.
fn messages(id: u64) -> impl Iterator<Item = EchoRequest> + Send {
    let long = Sort::of(id) == Sort::Long;
    // The server waits before each of its replies.
    let delay_ms = match Sort::of(id) {
        Sort::Bidi => PAUSE.as_millis() as u32,
        Sort::Short | Sort::Long => 0,
    };
    (0..MESSAGES).map(move |nth| {
        let size = if long && nth == 0 { LARGE } else { 1024 };
        EchoRequest {
            id,
            payload: vec![(id + nth as u64) as u8; size],
            delay_ms,
            ..EchoRequest::default()
        }
    })
}

/// Kills a server, and waits until the channels know. Gives the most streams of each channel that can have been on it.
async fn kill(rig: &mut Rig, server: usize, loads: [&RunningLoad; 2]) -> [u64; 2] {
    let ended = loads.map(|load| load.ok() + load.not_ok());
    block_in_place(|| rig.servers[server].kill());
    wait_until(LIMIT, || !rig.states(server).contains(&State::Ready)).await;
    let sent = loads.map(RunningLoad::sent);
    [sent[0] - ended[0], sent[1] - ended[1]]
}

/// Asserts that the error says that the connection to a server that was killed is gone, and that the stream may have
/// been processed; and that it came at once.
fn says_so(failure: &Failure, kills: &[(String, Duration)]) {
    let error = Error::from_status(&failure.status).expect("the channel's error");
    assert!(
        error.is_disconnected() && error.maybe_processed(),
        "{error:?}"
    );
    let killed = kills.iter().find(|(dead, at)| {
        error.endpoint() == Some(dead) && (*at..*at + limit(MOMENT)).contains(&failure.at)
    });
    assert!(killed.is_some(), "{failure:?}, {kills:?}");
}
