//! tonic-health's service.

use tonic_health::ServingStatus;
use trunkline::{Connector, Health, HealthCheck, HealthSource};

use super::clinic::Clinic;
use super::rig::{LIMIT, both, each, endpoints, often, servers};
use crate::client::health::{about, are, is, said, shares};
use crate::support::leak::LeakCheck;
use crate::support::wait::wait_until;

#[tokio::test]
async fn calls_follow_what_servers_say() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let ((reporter, a), (_other, b)) = (Clinic::real(), Clinic::real());
        let clinics = [a, b];
        let servers = servers(&clinics);
        let connector = Connector::endpoints(endpoints(&servers)).health_check(check);
        let channel = connector.connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        about(&shares(&channel, &servers, 20).await, &[10, 10]);

        let mut flips = channel.watch_state();
        flips.mark_unchanged();
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        let status = is(&channel, 0, Health::Ejected).await;
        assert_eq!(said(&status), (Some(HealthSource::Probe), "NOT_SERVING"));
        assert!(flips.has_changed().unwrap(), "told");
        about(&shares(&channel, &servers, 20).await, &[0, 20]);
        assert!(!channel.status().panic);

        reporter
            .set_service_status("", ServingStatus::Serving)
            .await;
        let status = is(&channel, 0, Health::Healthy).await;
        assert_eq!(said(&status), (None, ""));
        about(&shares(&channel, &servers, 20).await, &[10, 10]);

        // Another way not to serve.
        reporter
            .set_service_status("", ServingStatus::Unknown)
            .await;
        let status = is(&channel, 0, Health::Ejected).await;
        assert!(said(&status).1.contains("UNKNOWN"), "{status:?}");
        about(&shares(&channel, &servers, 20).await, &[0, 20]);
        for clinic in &clinics {
            let asked = clinic.asked();
            assert!(asked.iter().all(|it| it.service.is_empty()), "the server");
            assert!(asked.iter().all(|it| it.authorization.is_none()));
            assert_eq!(clinic.peak(), 1, "one question at a time");
        }
        drop((channel, servers));
    })
    .await;
    leaks.finish().await;
}

/// Told by the server, a client asks once.
#[tokio::test]
async fn a_watch_is_one_question() {
    let leaks = LeakCheck::start().await;
    let (reporter, clinic) = Clinic::real();
    let servers = servers(std::slice::from_ref(&clinic));
    let connector = Connector::endpoints(endpoints(&servers));
    let channel = connector.health_check(often(HealthCheck::grpc()));
    let channel = channel.connect().await.unwrap();
    for status in [ServingStatus::NotServing, ServingStatus::Serving] {
        reporter.set_service_status("", status).await;
        let wanted = match status {
            // The last endpoint is never ejected.
            ServingStatus::NotServing => Health::Tolerated,
            _ => Health::Healthy,
        };
        is(&channel, 0, wanted).await;
    }
    assert_eq!((clinic.times_by("Watch"), clinic.times()), (1, 1));
    assert_eq!(clinic.open(), 1);
    drop(channel);
    wait_until(LIMIT, || clinic.open() == 0).await;
    drop(servers);
    leaks.finish().await;
}

#[tokio::test]
async fn one_service_of_a_server_is_asked_for() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let ((reporter, a), (other, b)) = (Clinic::real(), Clinic::real());
        other
            .set_service_status("payments", ServingStatus::Serving)
            .await;
        let clinics = [a, b];
        let servers = servers(&clinics);
        let connector = Connector::endpoints(endpoints(&servers));
        let connector = connector.health_check(check.service("payments"));
        let channel = connector.connect().await.unwrap();
        // The first does not know it, though it serves as a whole.
        are(&channel, &[Health::Ejected, Health::Healthy]).await;
        let status = is(&channel, 0, Health::Ejected).await;
        let unknown = "it does not know the service \"payments\"";
        assert_eq!(said(&status), (Some(HealthSource::Probe), unknown));
        about(&shares(&channel, &servers, 10).await, &[0, 10]);
        // It learns, and is asked again.
        reporter
            .set_service_status("payments", ServingStatus::Serving)
            .await;
        are(&channel, &[Health::Healthy; 2]).await;
        // What else there is does not matter.
        reporter
            .set_service_status("", ServingStatus::NotServing)
            .await;
        about(&shares(&channel, &servers, 10).await, &[5, 5]);
        for clinic in &clinics {
            let asked = clinic.asked();
            assert!(asked.iter().all(|it| it.service == "payments"));
        }
        drop((channel, servers));
    })
    .await;
    leaks.finish().await;
}
