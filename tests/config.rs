//! Wrong settings: each is named by the connector before anything is started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use tonic::Code;
use trunkline::{
    Backoff, Balance, BudgetLimits, Channel, Connector, Endpoint, Error, Http2Options, Keepalive,
    PoolOptions, Retry, TcpOptions, UnixOptions,
};

const ZERO: Duration = Duration::ZERO;
const MAX: Duration = Duration::MAX;
const SECOND: Duration = Duration::from_secs(1);

/// The field that the error must begin with, and a connector with that field wrong.
type Wrong = (String, Connector);

fn connector() -> Connector {
    Connector::tcp("127.0.0.1:1")
}

fn wrong(field: &str, connector: Connector) -> Wrong {
    (field.to_owned(), connector)
}

fn pool(field: &str, set: impl FnOnce(PoolOptions) -> PoolOptions) -> Wrong {
    let options = set(PoolOptions::new());
    (format!("pool.{field}"), connector().pool(options))
}

fn http2(field: &str, set: impl FnOnce(Http2Options) -> Http2Options) -> Wrong {
    let options = set(Http2Options::new());
    (format!("http2.{field}"), connector().http2(options))
}

fn keepalive(field: &str, keepalive: Keepalive) -> Wrong {
    let connector = connector().keepalive(keepalive);
    (format!("keepalive.{field}"), connector)
}

fn tcp(field: &str, set: impl FnOnce(TcpOptions) -> TcpOptions) -> Wrong {
    let options = set(TcpOptions::new());
    (format!("tcp.{field}"), connector().tcp_options(options))
}

/// Of the channel, and of an endpoint, to which they need not apply.
fn unix(field: &str, set: impl FnOnce(UnixOptions) -> UnixOptions) -> [Wrong; 3] {
    let options = set(UnixOptions::strict());
    let endpoint = |it: Endpoint| {
        let endpoint = it.unix_options(options.clone());
        let field = format!("endpoint.unix.{field}");
        (field, Connector::endpoints([endpoint]))
    };
    [
        (
            format!("unix.{field}"),
            connector().unix_options(options.clone()),
        ),
        endpoint(Endpoint::unix("/run/a.sock")),
        endpoint(Endpoint::tcp("host:80")),
    ]
}

fn retry(field: &str, set: impl FnOnce(Retry) -> Retry) -> Wrong {
    let retry = set(Retry::exponential());
    (format!("retry.{field}"), connector().retry(retry))
}

fn budget(field: &str, set: impl FnOnce(BudgetLimits) -> BudgetLimits) -> Wrong {
    let limits = set(BudgetLimits::default());
    let connector = connector().retry_budget(limits);
    (format!("retry_budget.{field}"), connector)
}

/// The two backoffs that there are.
fn backoffs(field: &str, set: impl FnOnce(Backoff) -> Backoff) -> [Wrong; 2] {
    let backoff = set(Backoff::calls());
    [
        retry(&format!("backoff.{field}"), |it| it.backoff(backoff)),
        pool(&format!("dial_backoff.{field}"), |it| {
            it.dial_backoff(backoff)
        }),
    ]
}

fn targets() -> Vec<Wrong> {
    let long_host = format!("{}:80", "a".repeat(254));
    let long_path = format!("/{}", "a".repeat(200));
    let targets = [
        "",
        " ",
        ":80",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:http",
        "host:-1",
        "http//x",
        "ftp://host:21",
        "http://user:secret@host:80",
        "http://host:80?secret",
        "http://host:80#secret",
        "http://host:80/path",
        "[::1",
        "[::1]",
        "[fe80::1%eth0]:80",
        "::1:80",
        "hôst:80",
        "ho st:80",
        "host\r:80",
        "host\n:80",
        "host\0:80",
        "unix:",
        "unix:relative.sock",
        "unix:./relative.sock",
        "unix://relative.sock",
        "unix:/nul%00",
        "unix:/directory/",
        "unix:@",
        "host:80,,other:80",
        "host:80,",
        &long_host,
    ];
    // One byte more than a socket's address has room for.
    let (too_long, too_long_name) = (
        format!("/{}", "a".repeat(107)),
        format!("@{}", "a".repeat(108)),
    );
    let paths = [
        "",
        "relative.sock",
        "./relative.sock",
        "../relative.sock",
        "/nul\0",
        "/nul\0.sock",
        "@nul\0",
        "@",
        "/",
        "/directory/",
        &too_long,
        &too_long_name,
        &long_path,
    ];
    let addresses = ["", "http://host:80", "/a.sock"];
    let authorities = ["", "a@b", "a b", "a/b", "a\r\n"].map(|authority| {
        let endpoint = Endpoint::tcp("host:80").authority(authority);
        wrong("endpoint.authority", Connector::endpoints([endpoint]))
    });
    let targets = targets.map(|text| wrong("endpoint", Connector::target(text)));
    let paths = paths.map(|path| wrong("endpoint", Connector::unix(path)));
    let addresses = addresses.map(|text| wrong("endpoint", Connector::tcp(text)));
    let all = targets.into_iter().chain(paths).chain(addresses);
    all.chain(authorities).collect()
}

fn lists() -> Vec<Wrong> {
    let endpoint = |address: &str, weight| Endpoint::tcp(address).weight(weight);
    let two = |one, other| Connector::endpoints([one, other]);
    let many = |count: u32| {
        let addresses = (0..count).map(|it| format!("10.{}.0.1:{}", it >> 15, (it & 0x7fff) + 1));
        Connector::endpoints(addresses.map(Endpoint::tcp))
    };
    vec![
        wrong("endpoints", Connector::endpoints([])),
        wrong("endpoints", many(65_537)),
        wrong("endpoints", many(100_000)),
        wrong("endpoints", Connector::target("a:1,b:1,a:1")),
        wrong("endpoints", Connector::target("a:80,http://A")),
        wrong("endpoints", two(endpoint("a:1", 1), endpoint("a:1", 2))),
        wrong(
            "endpoints.weight",
            two(endpoint("a:1", 0), endpoint("b:1", 0)),
        ),
        wrong("balance", connector().balance(Balance::weighted())),
        wrong("balance", connector().balance(Balance::weighted_random())),
    ]
}

fn times() -> Vec<Wrong> {
    let long = 2 * SECOND;
    let every = |interval| keepalive("interval", Keepalive::every(interval));
    let shortest = 10 * SECOND;
    let answer = |limit| Keepalive::every(shortest).timeout(limit);
    let slower_than_calls = |(field, connector): Wrong| (field, connector.timeout(SECOND));
    let mut all = vec![
        slower_than_calls(pool("connect_timeout", |it| it.connect_timeout(long))),
        slower_than_calls(pool("unix_connect_timeout", |it| {
            it.unix_connect_timeout(long)
        })),
        pool("max_connection_age", |it| {
            it.connect_timeout(long).max_connection_age(long)
        }),
        every(SECOND),
        every(shortest - Duration::from_nanos(1)),
        keepalive("interval", Keepalive::every(ZERO).allow_frequent()),
        tcp("keepalive_retries", |it| it.keepalive_retries(0)),
        wrong("max_waiting", connector().max_waiting(0)),
        wrong("max_waiting", connector().max_waiting(usize::MAX)),
        wrong("fail_fast_after", connector().fail_fast_after(ZERO)),
    ];
    for bad in [ZERO, MAX] {
        all.extend([
            wrong("timeout", connector().timeout(bad)),
            wrong("ready_timeout", connector().ready_timeout(bad)),
            pool("wait_timeout", |it| it.wait_timeout(bad)),
            pool("idle_timeout", |it| it.idle_timeout(bad)),
            pool("connect_timeout", |it| it.connect_timeout(bad)),
            pool("unix_connect_timeout", |it| it.unix_connect_timeout(bad)),
            pool("max_connection_age", |it| it.max_connection_age(bad)),
            every(bad),
            keepalive("timeout", answer(bad)),
            tcp("keepalive_time", |it| it.keepalive_time(bad)),
            tcp("keepalive_interval", |it| it.keepalive_interval(bad)),
            tcp("user_timeout", |it| it.user_timeout(bad)),
            budget("window", |it| it.window(bad)),
        ]);
        all.extend(backoffs("initial", |it| it.initial(bad)));
        all.extend(backoffs("max", |it| it.max(bad)));
    }
    all
}

fn numbers() -> Vec<Wrong> {
    let mut all = vec![
        retry("attempts", |it| it.attempts(0)),
        retry("attempts", |it| it.attempts(6)),
        retry("attempts", |it| it.attempts(u32::MAX)),
        retry("per_try_timeout", |it| it.per_try_timeout(Duration::ZERO)),
        retry("per_try_timeout", |it| it.per_try_timeout(31 * SECOND)),
        retry("codes", |it| it.codes([])),
        retry("codes", |it| it.codes([Code::Ok])),
        retry("codes", |it| {
            it.attempts(1).codes([Code::Unavailable, Code::Ok])
        }),
        pool("max_connections", |it| it.max_connections(0)),
        pool("max_connections", |it| it.max_connections(1025)),
        pool("max_connections", |it| it.max_connections(usize::MAX)),
        pool("min_connections", |it| it.min_connections(5)),
        pool("min_connections", |it| it.min_connections(usize::MAX)),
        pool("max_waiting", |it| it.max_waiting(0)),
        pool("max_waiting", |it| it.max_waiting(usize::MAX)),
        http2("max_streams", |it| it.max_streams(0)),
        http2("max_streams", |it| it.max_streams(usize::MAX)),
    ];
    all.extend(unix("peer_pid", |it| it.peer_pid(0)));
    all.extend(unix("peer_pid", |it| it.peer_pid(1 << 31)));
    all.extend(unix("peer_uid", |it| it.peer_uid(u32::MAX)));
    all.extend(unix("owner", |it| it.owner(u32::MAX)));
    for bad in [0, 65_534, 1 << 31, u32::MAX] {
        all.push(http2("stream_window", |it| it.stream_window(bad)));
        all.push(http2("connection_window", |it| it.connection_window(bad)));
    }
    for bad in [0, 16_383, 1 << 24] {
        all.push(http2("max_frame_size", |it| it.max_frame_size(bad)));
    }
    for bad in [0, 1023, (16 << 20) + 1] {
        all.push(http2("max_header_list_size", |it| {
            it.max_header_list_size(bad)
        }));
    }
    for bad in [0, usize::MAX] {
        all.push(tcp("send_buffer_size", |it| it.send_buffer_size(bad)));
        all.push(tcp("receive_buffer_size", |it| it.receive_buffer_size(bad)));
    }
    for bad in [-0.01, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        all.push(budget("ratio", |it| it.ratio(bad)));
        all.extend(backoffs("jitter", |it| it.jitter(bad)));
        all.extend(backoffs("multiplier", |it| it.multiplier(bad)));
    }
    all.push(budget("ratio", |it| it.ratio(10.01)));
    all.extend(backoffs("jitter", |it| it.jitter(1.01)));
    all.extend(backoffs("multiplier", |it| it.multiplier(0.99)));
    all.extend(backoffs("max", |it| it.initial(2 * SECOND).max(SECOND)));
    all
}

/// What is wrong about the answer to a wrong setting.
fn objection(field: &str, result: Result<Channel, Error>) -> Option<String> {
    let Err(error) = result else {
        return Some("accepted".to_owned());
    };
    let text = error.to_string();
    let problem = text.strip_prefix(&format!("{field}: ")).unwrap_or("");
    let named = problem.len() > 10 && !text.contains(['\r', '\n', '\0']);
    let secret = text.contains("secret") || format!("{error:?}").contains("secret");
    let typed = error.is_config() && error.code() == Code::InvalidArgument;
    let status = tonic::Status::from(error);
    let found = Error::from_status(&status).is_some_and(Error::is_config);
    let right = named && typed && found && !secret && status.code() == Code::InvalidArgument;
    (!right).then_some(text)
}

fn all() -> impl Iterator<Item = Wrong> {
    let tables = [targets(), lists(), times(), numbers()];
    tables.into_iter().flatten()
}

fn shown(connector: &Connector) -> String {
    let mut text = format!("{connector:?}");
    text.truncate(2_000);
    text
}

#[tokio::test]
async fn every_wrong_setting_is_named() {
    let mut objections = Vec::new();
    for (field, connector) in all() {
        let what = shown(&connector);
        assert!(!what.contains("secret"), "{what}");
        if let Some(text) = objection(&field, connector.connect_lazy()) {
            objections.push(format!("{field}: {text:?}, for {what}"));
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
}

/// The settings are checked before anything is waited for.
#[tokio::test(start_paused = true)]
async fn connect_names_them_too_and_does_not_wait() {
    let start = tokio::time::Instant::now();
    for (field, connector) in all() {
        let objection = objection(&field, connector.connect().await);
        assert_eq!(objection, None, "{field}");
    }
    assert_eq!(
        start.elapsed(),
        ZERO,
        "of a clock that stands still unless waited for"
    );
}

#[tokio::test]
async fn the_edges_of_the_ranges_are_accepted() {
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    let instant = Duration::from_nanos(1);
    let endpoint = |address: &str| Endpoint::tcp(address);
    let narrow = PoolOptions::new()
        .min_connections(0)
        .max_waiting(1)
        .wait_timeout(instant)
        .idle_timeout(instant)
        .max_connection_age(SECOND + instant);
    let wide = PoolOptions::new()
        .min_connections(0)
        .max_connections(1024)
        .connect_timeout(year);
    let small = Http2Options::new()
        .max_streams(1)
        .stream_window(65_535)
        .connection_window((1 << 31) - 1)
        .max_frame_size(16_384)
        .max_header_list_size(1024);
    let frequent = Keepalive::every(instant).allow_frequent();
    let steady = Backoff::calls().jitter(1.0).multiplier(1.0);
    let nothing = BudgetLimits::default().ratio(0.0).min_per_second(0);
    let retry = Retry::exponential();
    let accepted = [
        connector(),
        connector().timeout(year).ready_timeout(year),
        connector().unix_options(UnixOptions::strict()),
        // Other options are another endpoint.
        Connector::endpoints([
            Endpoint::unix("/a.sock"),
            Endpoint::unix("/a.sock").unix_options(UnixOptions::new()),
        ]),
        connector().timeout(instant),
        connector().pool(narrow),
        connector().no_timeout().pool(wide.clone()),
        connector()
            .no_timeout()
            .pool(wide)
            .http2(Http2Options::new().max_streams(1_000_000)),
        connector().http2(small),
        connector().keepalive(Keepalive::every(10 * SECOND)),
        connector().keepalive(frequent),
        connector().retry(Retry::none().codes([]).replay_buffer(0)),
        connector().retry(retry.clone().attempts(5).replay_buffer(usize::MAX)),
        connector().retry_budget(nothing),
        connector().pool(PoolOptions::new().dial_backoff(steady)),
        Connector::endpoints([endpoint("a:1").weight(0), endpoint("b:1").weight(u32::MAX)]),
        Connector::endpoints([endpoint("a:1").weight(2), endpoint("b:1")])
            .balance(Balance::weighted()),
        // Of no effect, which is only worth a warning.
        Connector::endpoints([endpoint("a:1").weight(2)]).balance(Balance::round_robin()),
        // Another authority is another endpoint: two names behind one address.
        Connector::endpoints([
            endpoint("a:1").authority("x"),
            endpoint("a:1").authority("y"),
        ]),
    ];
    for connector in accepted {
        let what = shown(&connector);
        let channel = connector.connect_lazy();
        let channel = channel.unwrap_or_else(|error| panic!("{error}: {what}"));
        channel.close(ZERO).await;
    }
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    let error = connector().connect_lazy().unwrap_err();
    assert!(error.is_config(), "{error:?}");
    assert!(error.to_string().starts_with("runtime: "), "{error}");
    // Wrong settings are found there too.
    let error = Connector::endpoints([]).connect_lazy().unwrap_err();
    assert!(error.to_string().starts_with("endpoints: "), "{error}");
}
