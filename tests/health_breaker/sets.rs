//! The last endpoint, panic, what a word is worth, and outliers.

use std::time::Duration;

use tonic::Code;
use trunkline::{Breaker, EjectionLimits, Health, HealthSource, Influence, OutlierDetection};
use trunkline_proto::echo_client::EchoClient;

use super::rig::{Rig, for_a_moment, for_good};
use crate::client::health::{Flips, about, all, are, counted, is, said, shares, spread, status};
use crate::support::burst::{burst, ended};
use crate::support::leak::LeakCheck;

#[tokio::test]
async fn the_last_endpoint_is_never_ejected() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(1, for_a_moment()).await;
    rig.servers[0].behaviour().fail(1.0, Code::Unavailable);
    about(&spread(&rig.channel, &rig.servers, 30).await, &[30]);
    let told = is(&rig.channel, 0, Health::Tolerated).await;
    assert_eq!(told.decided_by, Some(HealthSource::Breaker));
    assert!(rig.channel.status().panic);
    rig.servers[0].behaviour().heal();
    // Not a call fails from here on. It is well once one came in due time.
    while rig.channel.status().panic {
        shares(&rig.channel, &rig.servers, 1).await;
        tokio::task::yield_now().await;
    }
    are(&rig.channel, &[Health::Healthy]).await;
    drop(rig);
    leaks.finish().await;
}

/// The last of three is not ejected either, and when the other two come back, it may be.
#[tokio::test]
async fn with_all_of_them_failing_everybody_gets_calls() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(3, for_a_moment()).await;
    for server in &rig.servers {
        server.behaviour().fail(1.0, Code::Unavailable);
    }
    while !rig.channel.status().panic {
        spread(&rig.channel, &rig.servers, 1).await;
        tokio::task::yield_now().await;
    }
    are(&rig.channel, &[Health::Tolerated; 3]).await;
    about(&spread(&rig.channel, &rig.servers, 30).await, &[10; 3]);
    // Well again, not a call fails.
    for server in &rig.servers {
        server.behaviour().heal();
    }
    while all(&rig.channel) != [Health::Healthy; 3] {
        shares(&rig.channel, &rig.servers, 1).await;
        tokio::task::yield_now().await;
    }
    assert!(!rig.channel.status().panic);
    drop(rig);
    leaks.finish().await;
}

/// Of three that fail, one is well again: calls go to it from its first good answer in due time on.
#[tokio::test]
async fn one_that_heals_ends_the_panic() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(3, for_a_moment()).await;
    for server in &rig.servers {
        server.behaviour().fail(1.0, Code::Unavailable);
    }
    while !rig.channel.status().panic {
        spread(&rig.channel, &rig.servers, 1).await;
        tokio::task::yield_now().await;
    }
    rig.servers[1].behaviour().heal();
    while rig.channel.status().panic {
        spread(&rig.channel, &rig.servers, 1).await;
        tokio::task::yield_now().await;
    }
    // The others have to prove themselves, with a call at a time.
    assert_eq!(status(&rig.channel, 1).health, Health::Healthy);
    let calls = spread(&rig.channel, &rig.servers, 30).await;
    assert!(calls[1] >= 20, "{calls:?}");
    let out = [Health::Ejected, Health::HalfOpen];
    assert!(out.contains(&status(&rig.channel, 0).health));
    drop(rig);
    leaks.finish().await;
}

/// With nobody to take its place, an endpoint that fails every second call keeps them all, and does not go from one
/// state to the other with every few of them.
#[tokio::test]
async fn half_a_failure_is_no_reason_to_flap() {
    for count in [1, 2] {
        let leaks = LeakCheck::start().await;
        let rig = Rig::with(count, Breaker::new()).await;
        for server in &rig.servers {
            server.behaviour().fail(0.5, Code::Unavailable);
        }
        let flips = Flips::follow(&rig.channel, 0);
        spread(&rig.channel, &rig.servers, 1000).await;
        // As many as there can be in a minute.
        let seen = flips.seen();
        assert!(seen.len() <= 2 * 11, "{seen:?}");
        drop((flips, rig));
        leaks.finish().await;
    }
}

/// In sets of five and more, so many may be ejected.
#[tokio::test]
async fn no_more_are_ejected_than_the_limits_allow() {
    let leaks = LeakCheck::start().await;
    let limits = EjectionLimits::new().max_ejected(0.2).panic_threshold(0.0);
    let rig = Rig::start(5, |connector| {
        connector.breaker(for_good()).ejection_limits(limits)
    })
    .await;
    rig.trip(2).await;
    rig.trip(4).await;
    let (well, out, stays) = (Health::Healthy, Health::Ejected, Health::Tolerated);
    are(&rig.channel, &[well, well, out, well, stays]).await;
    let calls = spread(&rig.channel, &rig.servers, 20).await;
    about(&calls, &[5, 5, 0, 5, 5]);
    assert!(!rig.channel.status().panic);
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn a_word_is_worth_what_it_is_set_to() {
    for (influence, calls) in [
        (Influence::Weight(0.5), [20, 40]),
        (Influence::Hint, [30, 30]),
        (Influence::Observe, [30, 30]),
    ] {
        let leaks = LeakCheck::start().await;
        let rig = Rig::with(2, for_a_moment().influence(influence)).await;
        rig.trip(0).await;
        let told = is(&rig.channel, 0, Health::Suspect).await;
        let reason = "5 calls in a row failed";
        assert_eq!(said(&told), (Some(HealthSource::Breaker), reason));
        let observed = match influence {
            Influence::Observe => vec![HealthSource::Breaker],
            _ => Vec::new(),
        };
        assert_eq!(told.observed, observed);
        about(&spread(&rig.channel, &rig.servers, 60).await, &calls);
        assert!(!rig.channel.status().panic);
        // Its calls go on, so one that succeeds in due time ends it.
        rig.servers[0].behaviour().heal();
        while status(&rig.channel, 0).health != Health::Healthy {
            shares(&rig.channel, &rig.servers, 1).await;
            tokio::task::yield_now().await;
        }
        drop(rig);
        leaks.finish().await;
    }
}

#[tokio::test]
async fn without_a_breaker_nothing_happens() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::start(2, |connector| connector.no_breaker()).await;
    rig.servers[0].behaviour().fail(1.0, Code::Unavailable);
    about(&spread(&rig.channel, &rig.servers, 60).await, &[30, 30]);
    assert_eq!(all(&rig.channel), [Health::Healthy; 2]);
    assert_eq!(said(&status(&rig.channel, 0)), (None, ""));
    drop(rig);
    leaks.finish().await;
}

/// Far fewer failures than the breaker minds; far more than the others have.
#[tokio::test]
async fn an_outlier_is_ejected_for_a_while() {
    let leaks = LeakCheck::start().await;
    let outliers = OutlierDetection::new()
        .interval(Duration::from_millis(100))
        .ejection_time(Duration::from_millis(300), Duration::from_secs(60))
        .success_rate(1.9, 5, 20);
    let rig = Rig::start(6, |connector| {
        connector.no_breaker().outlier_detection(outliers)
    })
    .await;
    let client = EchoClient::new(rig.channel.clone());
    rig.servers[0].behaviour().fail(0.3, Code::Unavailable);
    while status(&rig.channel, 0).health == Health::Healthy {
        ended(burst(&client, 1..=150)).await;
    }
    let told = is(&rig.channel, 0, Health::Ejected).await;
    let reason = "it does far worse than the others";
    assert_eq!(said(&told), (Some(HealthSource::Outliers), reason));
    let total = told.for_how_long + told.changes_in.unwrap();
    assert_eq!(total, Duration::from_millis(300));
    rig.servers[0].behaviour().heal();
    are(&rig.channel, &[Health::Healthy; 6]).await;
    let calls = counted(&rig.servers, async {
        for _ in 0..5 {
            ended(burst(&client, 1..=60)).await;
        }
    });
    about(&calls.await, &[50; 6]);
    // On the connections that there were before.
    for server in &rig.servers {
        assert_eq!(server.journal().accepted(), 1);
    }
    drop((client, rig));
    leaks.finish().await;
}
