//! The trial: how an endpoint that is out proves itself.

use std::time::Duration;

use tonic::Code;
use trunkline::{Balance, Breaker, CallOptions, Health, HealthSource};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use super::rig::{LIMIT, NEVER, Rig, for_a_moment};
use crate::client::calls::{hang, slow, unary};
use crate::client::first::First;
use crate::client::health::{Flips, about, are, is, said, shares, spread, status};
use crate::support::burst::burst;
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::wait::{wait_equal, wait_until};

/// It takes a while, and fifty calls come meanwhile.
#[tokio::test]
async fn one_call_is_the_trial_and_the_others_go_elsewhere() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_a_moment()).await;
    rig.trip(0).await;
    let told = is(&rig.channel, 0, Health::HalfOpen).await;
    assert_eq!(told.decided_by, Some(HealthSource::Breaker));
    assert_eq!(told.changes_in, None, "a call decides");

    let [on_trial, other] = &rig.servers[..] else {
        panic!("two servers");
    };
    let before = on_trial.journal().started();
    on_trial.behaviour().heal();
    on_trial.behaviour().set_delay(Duration::from_secs(1));
    let mut calls = burst(&EchoClient::new(rig.channel.clone()), 1..=50);
    let mut done = 0;
    while done < 49 {
        let (_, reply) = calls.join_next().await.unwrap().unwrap();
        assert_eq!(reply.unwrap().server, other.name(), "quicker");
        done += 1;
    }
    assert_eq!(on_trial.journal().in_flight(), 1);
    assert_eq!(on_trial.journal().started(), before + 1);
    let (_, reply) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(reply.unwrap().server, on_trial.name());
    is(&rig.channel, 0, Health::Healthy).await;
    on_trial.behaviour().heal();
    about(&shares(&rig.channel, &rig.servers, 20).await, &[10, 10]);
    // All on the connections that there were.
    for server in &rig.servers {
        assert_eq!(server.journal().accepted(), 1);
    }
    drop((calls, rig));
    leaks.finish().await;
}

/// Starts calls that never end until one of them is on the endpoint that is to prove itself.
async fn hanging(rig: &Rig) -> tokio::task::JoinHandle<()> {
    let journal = rig.servers[0].journal();
    let mut id = 100;
    let mut others = Vec::new();
    loop {
        let call = hang(&rig.channel, id);
        let started = rig
            .servers
            .iter()
            .map(|it| it.journal().started())
            .sum::<u64>();
        wait_until(LIMIT, || {
            let now = rig.servers.iter().map(|it| it.journal().started());
            now.sum::<u64>() > started || journal.in_flight() == 1
        })
        .await;
        if journal.in_flight() == 1 {
            others.iter().for_each(tokio::task::JoinHandle::abort);
            return tokio::spawn(async move {
                let _call = AbortOnDrop(call);
                std::future::pending().await
            });
        }
        others.push(call);
        id += 1;
    }
}

/// A call that is cancelled with its task.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn a_trial_that_is_cancelled_makes_room_for_the_next() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_a_moment()).await;
    rig.trip(0).await;
    is(&rig.channel, 0, Health::HalfOpen).await;
    rig.servers[0].behaviour().heal();
    let trial = hanging(&rig).await;
    // As long as it runs, there is no other.
    about(&shares(&rig.channel, &rig.servers, 20).await, &[0, 20]);
    assert_eq!(status(&rig.channel, 0).health, Health::HalfOpen);
    trial.abort();
    wait_equal(LIMIT, 0, || rig.servers[0].journal().in_flight()).await;
    let mut came = 0;
    for _ in 0..3 {
        came += shares(&rig.channel, &rig.servers, 1).await[0];
    }
    assert!(came >= 1, "the next one");
    is(&rig.channel, 0, Health::Healthy).await;
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn a_trial_that_fails_doubles_the_time() {
    let leaks = LeakCheck::start().await;
    let first = Duration::from_millis(50);
    let breaker = Breaker::new().open_for(first, first * 4);
    let rig = Rig::with(2, breaker).await;
    rig.trip(0).await;
    for (times, reason) in [
        (1, "5 calls in a row failed"),
        (2, "the call that should prove it well failed"),
        (4, "the call that should prove it well failed"),
        // The longest.
        (4, "the call that should prove it well failed"),
    ] {
        let told = is(&rig.channel, 0, Health::Ejected).await;
        assert_eq!(said(&told), (Some(HealthSource::Breaker), reason));
        let total = told.for_how_long + told.changes_in.unwrap();
        let least = first * times;
        assert!((least..=least.mul_f64(1.2)).contains(&total), "{total:?}");
        is(&rig.channel, 0, Health::HalfOpen).await;
        while status(&rig.channel, 0).health == Health::HalfOpen {
            spread(&rig.channel, &rig.servers, 1).await;
            tokio::task::yield_now().await;
        }
    }
    drop(rig);
    leaks.finish().await;
}

/// The next call comes before the others have heard that the trial failed.
#[tokio::test]
async fn a_trial_that_failed_is_not_followed_by_another() {
    let leaks = LeakCheck::start().await;
    let times = Breaker::new().open_for(Duration::from_millis(100), NEVER);
    let times = times.consecutive_failures(1);
    let rig = Rig::start(2, |connector| {
        // Would send all of them to the one that is on trial.
        let first = Balance::custom(First::default());
        connector.balance(first).breaker(times)
    })
    .await;
    rig.trip(0).await;
    for _ in 0..4 {
        is(&rig.channel, 0, Health::HalfOpen).await;
        let calls = spread(&rig.channel, &rig.servers, 5).await;
        assert_eq!(calls, [1, 4]);
        is(&rig.channel, 0, Health::Ejected).await;
    }
    drop(rig);
    leaks.finish().await;
}

/// Calls with long deadlines, and slow ones, end when the breaker has been half-open for long.
#[tokio::test]
async fn what_was_sent_before_it_opened_decides_nothing() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::start(2, |connector| {
        let first = Balance::custom(First::default());
        connector.balance(first).breaker(for_a_moment())
    })
    .await;
    let late = || {
        let mut late = tonic::Request::new(EchoRequest {
            delay_ms: u32::MAX,
            ..request(1)
        });
        let soon = CallOptions::new().timeout(Duration::from_millis(500));
        late.extensions_mut().insert(soon);
        late
    };
    let mut client = EchoClient::new(rig.channel.clone());
    let mut pinned = EchoClient::new(rig.channel.acquire().await.unwrap());
    let calls = [
        tokio::spawn(async move { client.unary(late()).await.map(drop) }),
        tokio::spawn(async move { pinned.unary(late()).await.map(drop) }),
    ];
    let slow = slow(&rig.channel, 2, 500);
    wait_equal(LIMIT, 3, || rig.servers[0].journal().in_flight()).await;
    rig.trip(0).await;
    is(&rig.channel, 0, Health::HalfOpen).await;
    for call in calls {
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(first(&rig), Health::HalfOpen);
    }
    let _ = slow.await.unwrap();
    assert_eq!(first(&rig), Health::HalfOpen);
    rig.servers[0].behaviour().heal();
    unary(&rig.channel, 3).await.unwrap();
    is(&rig.channel, 0, Health::Healthy).await;
    drop(rig);
    leaks.finish().await;
}

fn first(rig: &Rig) -> Health {
    status(&rig.channel, 0).health
}

/// Answers of the application's own prove that it works; cancelled ones prove nothing.
#[tokio::test]
async fn any_answer_of_the_application_is_a_proof() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_a_moment()).await;
    rig.trip(0).await;
    is(&rig.channel, 0, Health::HalfOpen).await;
    rig.servers[0]
        .behaviour()
        .fail(1.0, Code::ResourceExhausted);
    for _ in 0..3 {
        spread(&rig.channel, &rig.servers, 3).await;
        assert_eq!(status(&rig.channel, 0).health, Health::HalfOpen);
    }
    rig.servers[0].behaviour().fail(1.0, Code::NotFound);
    spread(&rig.channel, &rig.servers, 3).await;
    is(&rig.channel, 0, Health::Healthy).await;
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn watchers_see_each_step() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_a_moment()).await;
    let flips = Flips::follow(&rig.channel, 0);
    rig.trip(0).await;
    is(&rig.channel, 0, Health::HalfOpen).await;
    rig.servers[0].behaviour().heal();
    while status(&rig.channel, 0).health != Health::Healthy {
        unary(&rig.channel, 1).await.unwrap();
    }
    let wanted = [Health::Ejected, Health::HalfOpen, Health::Healthy];
    wait_equal(LIMIT, wanted.to_vec(), || flips.seen()).await;
    drop((flips, rig));
    leaks.finish().await;
}

/// Two that are out at once have a trial each.
#[tokio::test]
async fn each_endpoint_has_its_own_trial() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(3, for_a_moment()).await;
    rig.trip(0).await;
    rig.trip(1).await;
    are(
        &rig.channel,
        &[Health::HalfOpen, Health::HalfOpen, Health::Healthy],
    )
    .await;
    for server in &rig.servers {
        server.behaviour().heal();
    }
    let calls = shares(&rig.channel, &rig.servers, 30).await;
    assert!(calls.iter().all(|calls| *calls >= 1), "{calls:?}");
    are(&rig.channel, &[Health::Healthy; 3]).await;
    drop(rig);
    leaks.finish().await;
}
