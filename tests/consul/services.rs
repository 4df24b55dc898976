//! Services by the agent's API: registered, checked, taken out, looked up.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wait::Asking;

use super::api::Api;
use super::registration::{Health, Registration, check_id};

/// How long the catalogue may take to show what the agent was told.
const LIMIT: Duration = Duration::from_secs(10);

/// What changes here is in the catalogue soon afterwards, and not at once; see [`shows`](Api::shows).
impl Api {
    /// Registers a service, or changes the one with this id.
    #[track_caller]
    pub fn register(&self, registration: &Registration) -> impl Future<Output = ()> + use<> {
        self.tell("/v1/agent/service/register", Some(registration.json()))
    }

    #[track_caller]
    pub fn deregister(&self, id: &str) -> impl Future<Output = ()> + use<> {
        self.tell(&format!("/v1/agent/service/deregister/{id}"), None)
    }

    /// What the check says from now on; the service was registered [with one](Registration::health).
    #[track_caller]
    pub fn set_health(&self, id: &str, health: Health) -> impl Future<Output = ()> + use<> {
        let path = format!("/v1/agent/check/update/{}", check_id(id));
        self.tell(&path, Some(json!({"Status": health.word()})))
    }

    /// Takes a service out for maintenance, or back in. It has a critical check of Consul's own meanwhile.
    #[track_caller]
    pub fn maintenance(&self, id: &str, on: bool) -> impl Future<Output = ()> + use<> {
        let path = format!("/v1/agent/service/maintenance/{id}?enable={on}");
        self.tell(&path, None)
    }

    /// The worst check of each id of a service, those of its agent included.
    #[track_caller]
    pub fn health(&self, service: &str) -> impl Future<Output = BTreeMap<String, Health>> + use<> {
        let path = format!("/v1/health/service/{service}");
        let answer = self.done("GET", &path, None);
        async move {
            let entries = answer.await.json();
            entries.as_array().unwrap().iter().map(entry).collect()
        }
    }

    /// Waits until the catalogue has these ids of a service, in this health, and no others. Panics when it does not
    /// within 10 s.
    #[track_caller]
    pub fn shows(
        &self,
        service: &str,
        wanted: &[(&str, Health)],
    ) -> impl Future<Output = ()> + use<> {
        let caller = Location::caller();
        let own = |(id, health): &(&str, Health)| ((*id).to_owned(), *health);
        let wanted: BTreeMap<_, _> = wanted.iter().map(own).collect();
        let (api, service) = (self.clone(), service.to_owned());
        async move {
            let asking = Asking::for_at_most(LIMIT);
            loop {
                let seen = api.health(&service).await;
                if seen == wanted {
                    return;
                }
                assert!(
                    asking.again().await,
                    "at {caller}: {service}: wanted {wanted:?} within {LIMIT:?}, last saw {seen:?}"
                );
            }
        }
    }

    #[track_caller]
    fn tell(&self, path: &str, body: Option<Value>) -> impl Future<Output = ()> + use<> {
        let answer = self.done("PUT", path, body.as_ref());
        async {
            answer.await;
        }
    }
}

/// One entry of a health query.
fn entry(entry: &Value) -> (String, Health) {
    let id = entry["Service"]["ID"].as_str().unwrap().to_owned();
    let checks = entry["Checks"].as_array().unwrap().iter();
    let worst = checks
        .map(|check| Health::of_word(check["Status"].as_str().unwrap()))
        .max();
    (id, worst.unwrap_or(Health::Passing))
}
