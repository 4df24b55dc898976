//! Wrong settings of health: each is named by the connector before anything is started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use tonic::Code;
use trunkline::{
    Breaker, Connector, EjectionLimits, Endpoint, Error, HealthCheck, Influence, OutlierDetection,
};

const ZERO: Duration = Duration::ZERO;
const MAX: Duration = Duration::MAX;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A little less than the shortest interval.
const SHORT: Duration = Duration::from_millis(99);
const SHORTEST: Duration = Duration::from_millis(100);
/// A little more than the longest time.
const LONG: Duration = Duration::from_secs(24 * 60 * 60 + 1);

/// The field that the error must begin with, and a connector with that field wrong.
type Wrong = (String, Connector);

fn connector() -> Connector {
    Connector::tcp("127.0.0.1:1")
}

fn check(field: &str, set: impl FnOnce(HealthCheck) -> HealthCheck) -> Wrong {
    let connector = connector().health_check(set(HealthCheck::grpc()));
    (format!("health_check.{field}"), connector)
}

fn breaker(field: &str, set: impl FnOnce(Breaker) -> Breaker) -> Wrong {
    let connector = connector().breaker(set(Breaker::new()));
    (format!("breaker.{field}"), connector)
}

fn outliers(field: &str, set: impl FnOnce(OutlierDetection) -> OutlierDetection) -> Wrong {
    let connector = connector().outlier_detection(set(OutlierDetection::new()));
    (format!("outlier_detection.{field}"), connector)
}

fn limits(field: &str, set: impl FnOnce(EjectionLimits) -> EjectionLimits) -> Wrong {
    let connector = connector().ejection_limits(set(EjectionLimits::new()));
    (format!("ejection_limits.{field}"), connector)
}

/// Shares that are none.
const NO_SHARES: [f64; 6] = [
    -0.1,
    1.1,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MAX,
];

/// Weights that are none.
fn no_weights() -> impl Iterator<Item = Influence> {
    let zeros = [0.0, -0.0, 2.0];
    zeros.into_iter().chain(NO_SHARES).map(Influence::Weight)
}

fn checks() -> Vec<Wrong> {
    let mut all = Vec::new();
    for time in [ZERO, SHORT, LONG, MAX] {
        all.push(check("interval", |it| it.interval(time)));
        all.push(check("unhealthy_interval", |it| {
            it.unhealthy_interval(time)
        }));
    }
    for time in [ZERO, LONG, MAX] {
        all.push(check("timeout", |it| it.timeout(time)));
    }
    for name in ["a\nb".to_owned(), "\0".to_owned(), "a".repeat(1025)] {
        all.push(check("service", |it| it.service(name)));
    }
    for path in ["", "healthz", "*", "/a b", "/\n", "http://host/healthz"] {
        all.push(check("http", |_| HealthCheck::http(path)));
    }
    for (first, longest) in [(SECOND, SECOND / 2), (SECOND, LONG), (MAX, MAX)] {
        all.push(check("min_healthy_time", |it| {
            it.min_healthy_time(first, longest)
        }));
    }
    all.push(check("unhealthy_threshold", |it| it.unhealthy_threshold(0)));
    all.push(check("healthy_threshold", |it| it.healthy_threshold(0)));
    all.extend(no_weights().map(|weight| check("influence", |it| it.influence(weight))));
    all
}

fn breakers() -> Vec<Wrong> {
    let mut all = vec![
        breaker("consecutive_failures", |it| it.consecutive_failures(0)),
        breaker("min_calls", |it| it.min_calls(0)),
    ];
    for rate in NO_SHARES {
        all.push(breaker("min_success_rate", |it| it.min_success_rate(rate)));
    }
    for time in [ZERO, SHORT, LONG, MAX] {
        all.push(breaker("window", |it| it.window(time)));
    }
    for (first, longest) in [
        (ZERO, SECOND),
        (ZERO, ZERO),
        (SECOND, SECOND / 2),
        (SECOND, LONG),
        (MAX, MAX),
    ] {
        all.push(breaker("open_for", |it| it.open_for(first, longest)));
    }
    all.extend(no_weights().map(|weight| breaker("influence", |it| it.influence(weight))));
    all
}

fn outlier_rules() -> Vec<Wrong> {
    let mut all = Vec::new();
    for time in [ZERO, SHORT, LONG, MAX] {
        all.push(outliers("interval", |it| it.interval(time)));
    }
    for (base, longest) in [
        (ZERO, SECOND),
        (SECOND, SECOND / 2),
        (SECOND, LONG),
        (MAX, MAX),
    ] {
        all.push(outliers("ejection_time", |it| {
            it.ejection_time(base, longest)
        }));
    }
    for share in NO_SHARES {
        all.push(outliers("max_ejected", |it| it.max_ejected(share)));
        all.push(outliers("failure_share", |it| {
            it.failure_share(share, 5, 50)
        }));
    }
    for (of_rate, of_share) in NO_SHARES.into_iter().flat_map(|it| [(it, 1.0), (1.0, it)]) {
        all.push(outliers("enforced", |it| it.enforced(of_rate, of_share)));
    }
    for deviations in [-0.1, f64::NAN, f64::INFINITY] {
        all.push(outliers("success_rate", |it| {
            it.success_rate(deviations, 5, 100)
        }));
    }
    for (endpoints, calls) in [(0, 1), (1, 0)] {
        all.push(outliers("success_rate", |it| {
            it.success_rate(1.9, endpoints, calls)
        }));
        all.push(outliers("failure_share", |it| {
            it.failure_share(0.85, endpoints, calls)
        }));
    }
    all.extend(no_weights().map(|weight| outliers("influence", |it| it.influence(weight))));
    all
}

fn influences() -> Vec<Wrong> {
    let discovery = no_weights().map(|it| {
        let connector = connector().discovery_influence(it);
        ("discovery.influence".to_owned(), connector)
    });
    let overload = no_weights().chain([Influence::Veto]).map(|it| {
        let connector = connector().overload_influence(it);
        ("overload.influence".to_owned(), connector)
    });
    discovery.chain(overload).collect()
}

fn ejection_limits() -> Vec<Wrong> {
    let mut all = Vec::new();
    for share in NO_SHARES {
        all.push(limits("max_ejected", |it| it.max_ejected(share)));
        all.push(limits("panic_threshold", |it| it.panic_threshold(share)));
    }
    all
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let all = [
        checks(),
        breakers(),
        outlier_rules(),
        influences(),
        ejection_limits(),
    ];
    let mut unnamed = Vec::new();
    for (field, connector) in all.into_iter().flatten() {
        let setting = format!("{connector:?}");
        let error = match connector.connect_lazy() {
            Ok(_) => panic!("{field} was taken: {setting}"),
            Err(error) => error,
        };
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        let text = error.to_string();
        if !text.starts_with(&format!("{field}: ")) {
            unnamed.push((field, text));
        }
    }
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}

#[tokio::test]
async fn the_outermost_right_settings_are_taken() {
    let check = || HealthCheck::grpc().influence(Influence::Weight(1.0));
    let endpoints = [1, 2].map(|port| Endpoint::tcp(format!("127.0.0.1:{port}")));
    let right = |check: HealthCheck, breaker, outliers, limits| {
        let connector = Connector::endpoints(endpoints.clone());
        let connector = connector.health_check(check).breaker(breaker);
        let connector = connector
            .outlier_detection(outliers)
            .ejection_limits(limits);
        connector.connect_lazy().map(drop)
    };
    let low: Result<(), Error> = right(
        check()
            .interval(SHORTEST)
            .unhealthy_interval(SHORTEST)
            .timeout(Duration::from_nanos(1))
            .unhealthy_threshold(1)
            .healthy_threshold(1)
            .min_healthy_time(ZERO, ZERO)
            .service(""),
        Breaker::new()
            .consecutive_failures(1)
            .min_success_rate(0.0)
            .window(SHORTEST)
            .min_calls(1)
            .open_for(SHORTEST / 100, SHORTEST / 100)
            .influence(Influence::Weight(f64::MIN_POSITIVE)),
        OutlierDetection::new()
            .interval(SHORTEST)
            .ejection_time(SHORTEST / 100, SHORTEST / 100)
            .max_ejected(0.0)
            .success_rate(0.0, 1, 1)
            .failure_share(0.0, 1, 1),
        EjectionLimits::new().max_ejected(0.0).panic_threshold(0.0),
    );
    low.unwrap();
    let high = right(
        check()
            .interval(DAY)
            .unhealthy_interval(DAY)
            .timeout(DAY)
            .unhealthy_threshold(u32::MAX)
            .healthy_threshold(u32::MAX)
            .min_healthy_time(DAY, DAY)
            .service("a".repeat(1024)),
        Breaker::new()
            .consecutive_failures(u32::MAX)
            .min_success_rate(1.0)
            .window(DAY)
            .min_calls(u64::MAX)
            .open_for(DAY, DAY)
            .influence(Influence::Hint),
        OutlierDetection::new()
            .interval(DAY)
            .ejection_time(DAY, DAY)
            .max_ejected(1.0)
            .success_rate(f64::MAX, usize::MAX, u64::MAX)
            .failure_share(1.0, usize::MAX, u64::MAX)
            .enforced(0.0, 1.0)
            .influence(Influence::Observe),
        EjectionLimits::new().max_ejected(1.0).panic_threshold(1.0),
    );
    high.unwrap();
    // A rule that is not there can't be wrong.
    let none = OutlierDetection::new()
        .success_rate(-1.0, 0, 0)
        .no_success_rate()
        .failure_share(2.0, 0, 0)
        .no_failure_share();
    let connector = connector().outlier_detection(none).no_breaker();
    connector.connect_lazy().map(drop).unwrap();
    for path in ["/", "/healthz", "/healthz?full=1"] {
        let connector = self::connector().health_check(HealthCheck::http(path));
        connector.connect_lazy().map(drop).unwrap();
    }
}
