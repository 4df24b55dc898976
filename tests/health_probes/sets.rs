//! The first answer, discovery, panic, and what a word is worth.

use std::time::Duration;

use trunkline::{Connector, Endpoint, Health, HealthCheck, HealthSource, Influence, State};

use super::clinic::{Clinic, Says};
use super::rig::{LIMIT, Rig, both, each, endpoints, often, servers};
use crate::client::calls::{endpoint, slow, unary};
use crate::client::health::{about, are, is, said, shares, status};
use crate::client::told::Told;
use crate::support::leak::LeakCheck;
use crate::support::wait::{wait_equal, wait_until, within};

/// As gRFC A17 has it: connected is not ready.
#[tokio::test]
async fn the_first_call_waits_for_the_first_answer() {
    let leaks = LeakCheck::start().await;
    let clinic = Clinic::that(Says::Nothing);
    let servers = servers(std::slice::from_ref(&clinic));
    let connector = Connector::endpoints(endpoints(&servers));
    // Nothing but the answer ends the wait.
    let check = HealthCheck::grpc().timeout(Duration::from_secs(3600));
    let channel = connector.health_check(check).connect_lazy().unwrap();
    let call = slow(&channel, 1, 0);
    wait_equal(LIMIT, 1, || clinic.times()).await;
    wait_equal(LIMIT, 1, || channel.stats().calls).await;
    is(&channel, 0, Health::Unknown).await;
    assert_eq!(channel.status().state, State::Connecting);
    assert_eq!(channel.status().endpoints[0].state, State::Ready);
    assert!(!call.is_finished());
    assert_eq!(servers[0].journal().started(), 0);
    clinic.say(Says::Serving);
    within(LIMIT, "the call", call).await.unwrap().unwrap();
    assert_eq!(channel.status().state, State::Ready);
    drop((channel, servers));
    leaks.finish().await;
}

/// One that has answered gets the calls meanwhile.
#[tokio::test]
async fn calls_wait_for_one_answer_and_not_for_all() {
    let leaks = LeakCheck::start().await;
    let clinics = [Says::Nothing, Says::Serving].map(Clinic::that);
    let servers = servers(&clinics);
    let connector = Connector::endpoints(endpoints(&servers));
    let check = HealthCheck::grpc().timeout(Duration::from_secs(3600));
    let channel = connector.health_check(check).connect().await.unwrap();
    are(&channel, &[Health::Unknown, Health::Healthy]).await;
    about(&shares(&channel, &servers, 10).await, &[0, 10]);
    drop((channel, servers));
    leaks.finish().await;
}

/// The first answer counts at once, also a bad one.
#[tokio::test]
async fn a_server_that_begins_ill_gets_no_call() {
    for (says, check) in [
        (Says::NotServing, HealthCheck::grpc()),
        (Says::Unknown, HealthCheck::grpc_check()),
        (Says::ServiceUnknown, HealthCheck::grpc()),
        (Says::ServiceUnknown, HealthCheck::grpc_check()),
    ] {
        let leaks = LeakCheck::start().await;
        let rig = Rig::start(&[says, Says::Serving], often(check)).await;
        are(&rig.channel, &[Health::Ejected, Health::Healthy]).await;
        about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10]);
        drop(rig);
        leaks.finish().await;
    }
}

#[tokio::test]
async fn endpoints_that_leave_are_asked_no_more() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let clinics = [Says::Serving; 2].map(Clinic::that);
        let servers = servers(&clinics);
        let (teller, told) = Told::saying(Ok(endpoints(&servers)));
        let connector = Connector::discover(told).health_check(check);
        let channel = connector.connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        teller.say([endpoint(&servers[0])]);
        wait_equal(LIMIT, 1, || channel.status().endpoints.len()).await;
        wait_equal(LIMIT, 0, || servers[1].journal().open()).await;
        wait_equal(LIMIT, 0, || clinics[1].open()).await;
        let left = clinics[1].times();
        // The other one goes on.
        clinics[0].say(Says::NotServing);
        is(&channel, 0, Health::Tolerated).await;
        clinics[0].say(Says::Serving);
        is(&channel, 0, Health::Healthy).await;
        assert_eq!(clinics[1].times(), left);
        // Back again, it is new.
        clinics[1].say(Says::NotServing);
        teller.say(endpoints(&servers));
        are(&channel, &[Health::Healthy, Health::Ejected]).await;
        about(&shares(&channel, &servers, 10).await, &[10, 0]);
        // Drained, it has no connection to be asked on.
        teller.say([endpoint(&servers[0]), endpoint(&servers[1]).weight(0)]);
        are(&channel, &[Health::Healthy, Health::Disconnected]).await;
        wait_equal(LIMIT, 0, || servers[1].journal().open()).await;
        drop((channel, servers));
    })
    .await;
    leaks.finish().await;
}

#[tokio::test]
async fn with_nobody_well_everybody_gets_calls() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::start(&[Says::NotServing; 3], often(HealthCheck::grpc())).await;
    are(&rig.channel, &[Health::Tolerated; 3]).await;
    assert!(rig.channel.status().panic);
    about(&shares(&rig.channel, &rig.servers, 30).await, &[10; 3]);
    let told = status(&rig.channel, 0);
    assert_eq!(said(&told), (Some(HealthSource::Probe), "NOT_SERVING"));
    // One is enough to end it.
    let mut state = rig.channel.watch_state();
    state.mark_unchanged();
    rig.clinics[1].say(Says::Serving);
    are(
        &rig.channel,
        &[Health::Ejected, Health::Healthy, Health::Ejected],
    )
    .await;
    assert!(!rig.channel.status().panic);
    assert!(state.has_changed().unwrap());
    about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10, 0]);
    drop(rig);
    leaks.finish().await;
}

/// A misspelt name makes all of them unknown: calls go on, and the status says why.
#[tokio::test]
async fn a_service_that_nobody_knows_is_told_of_and_costs_no_call() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let rig = Rig::start(&[Says::ServiceUnknown; 2], check.service("ehco")).await;
        are(&rig.channel, &[Health::Tolerated; 2]).await;
        assert!(rig.channel.status().panic);
        let reason = "it does not know the service \"ehco\"";
        let told = status(&rig.channel, 0);
        assert_eq!(said(&told), (Some(HealthSource::Probe), reason));
        about(&shares(&rig.channel, &rig.servers, 10).await, &[5, 5]);
        assert!(rig.clinics[0].asked().iter().all(|it| it.service == "ehco"));
    })
    .await;
    leaks.finish().await;
}

/// From five endpoints on, fewer than half are too few.
#[tokio::test]
async fn with_fewer_than_half_well_everybody_gets_calls() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::start(&[Says::Serving; 6], often(HealthCheck::grpc())).await;
    are(&rig.channel, &[Health::Healthy; 6]).await;
    for clinic in &rig.clinics[..3] {
        clinic.say(Says::NotServing);
    }
    let (out, well) = (Health::Ejected, Health::Healthy);
    are(&rig.channel, &[out, out, out, well, well, well]).await;
    assert!(!rig.channel.status().panic);
    let calls = shares(&rig.channel, &rig.servers, 12).await;
    about(&calls, &[0, 0, 0, 4, 4, 4]);
    rig.clinics[3].say(Says::NotServing);
    wait_until(LIMIT, || rig.channel.status().panic).await;
    let out = Health::Tolerated;
    are(&rig.channel, &[out, out, out, out, well, well]).await;
    about(&shares(&rig.channel, &rig.servers, 12).await, &[2; 6]);
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn a_word_is_worth_what_it_is_set_to() {
    for (influence, calls) in [
        (Influence::Veto, [0, 60]),
        (Influence::Weight(0.5), [20, 40]),
        (Influence::Hint, [30, 30]),
        (Influence::Observe, [30, 30]),
    ] {
        let leaks = LeakCheck::start().await;
        let check = often(HealthCheck::grpc()).influence(influence);
        let rig = Rig::start(&[Says::Serving; 2], check).await;
        are(&rig.channel, &[Health::Healthy; 2]).await;
        rig.clinics[0].say(Says::NotServing);
        let wanted = match influence {
            Influence::Veto => Health::Ejected,
            _ => Health::Suspect,
        };
        let told = is(&rig.channel, 0, wanted).await;
        assert_eq!(said(&told), (Some(HealthSource::Probe), "NOT_SERVING"));
        let observed = match influence {
            Influence::Observe => vec![HealthSource::Probe],
            _ => Vec::new(),
        };
        assert_eq!(told.observed, observed);
        about(&shares(&rig.channel, &rig.servers, 60).await, &calls);
        assert!(!rig.channel.status().panic);
        drop(rig);
        leaks.finish().await;
    }
}

/// A share is a share of the endpoint's own weight.
#[tokio::test]
async fn weights_are_multiplied() {
    let leaks = LeakCheck::start().await;
    let clinics = [Says::NotServing, Says::Serving].map(Clinic::that);
    let servers = servers(&clinics);
    let weighted = |(server, weight)| -> Endpoint { endpoint(server).weight(weight) };
    let connector = Connector::endpoints(servers.iter().zip([3, 1]).map(weighted));
    let check = often(HealthCheck::grpc()).influence(Influence::Weight(0.1));
    let channel = connector.health_check(check).connect().await.unwrap();
    are(&channel, &[Health::Suspect, Health::Healthy]).await;
    about(&shares(&channel, &servers, 130).await, &[30, 100]);
    // The status has the weight as it was set.
    assert_eq!(channel.status().endpoints[0].weight, 3);
    drop((channel, servers));
    leaks.finish().await;
}

/// Without a veto nobody waits for an answer.
#[tokio::test]
async fn a_hint_keeps_no_call_waiting() {
    for influence in [Influence::Weight(0.5), Influence::Hint, Influence::Observe] {
        let leaks = LeakCheck::start().await;
        let clinic = Clinic::that(Says::Nothing);
        let servers = servers(std::slice::from_ref(&clinic));
        let connector = Connector::endpoints(endpoints(&servers));
        let check = HealthCheck::grpc().timeout(Duration::from_secs(3600));
        let check = check.influence(influence);
        let channel = connector.health_check(check).connect().await.unwrap();
        within(LIMIT, "a call", unary(&channel, 1)).await.unwrap();
        drop((channel, servers));
        leaks.finish().await;
    }
}
