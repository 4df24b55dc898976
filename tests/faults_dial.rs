//! Score card rows 10, 11, 12 and 53: endpoints that can't be connected to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeFrom;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rows::calls::call;
use rows::dials::Dialled;
use rows::limit;
use rows::panics::Panics;
use rows::rig::{LIMIT, Loads, Rig, Side, most_dials, settings};
use rows::stall::{Stage, Stall};
use socket2::{Domain, SockAddr, Socket, Type};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::load::Load;
use support::report::Report;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::wait_until;
use tokio::task::block_in_place;
use tokio::time::Instant;
use trunkline::{Channel, Connector, Error, State};

/// The connect limit of the rows' settings.
const CONNECT: Duration = Duration::from_millis(500);

/// Calls leave a server that refuses connections at once, and it is dialled no more often than the backoff says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_connection_refused() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let began = Instant::now();
    block_in_place(|| rig.servers[0].kill());
    wait_until(LIMIT, || !rig.states(0).contains(&State::Ready)).await;
    let moved = began.elapsed();
    let handled = [1, 2].map(|nth| rig.servers[nth].journal().started());
    let sent = load.sent();
    load.part(2, 3).await;
    let down = began.elapsed();
    let dials = [&rig.retrying, &rig.single].map(|side| side.dials.to(&rig.address(0), began));
    // Each of the others has half of what was sent.
    let sent = load.sent() - sent;
    for (nth, before) in [1, 2].into_iter().zip(handled) {
        let journal = rig.servers[nth].journal();
        wait_until(LIMIT, || (journal.started() - before + 5) * 2 >= sent).await;
    }
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    let most = most_dials(down);
    for dials in &dials {
        assert!(dials.len() >= 2, "it is tried again and again");
        assert!(dials.len() <= most, "{} dials in {down:?}", dials.len());
        let refused = |dial: &Dialled| dial.error == Some(ErrorKind::ConnectionRefused);
        assert!(dials.iter().all(refused), "{dials:?}");
    }
    let recovery = reports.recovery(fault);
    let figures = [
        ("share_ms", moved.as_millis() as u64),
        ("dials", dials.iter().map(Vec::len).max().unwrap() as u64),
        ("dials_allowed", most as u64),
    ];
    rig.score("10", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
    assert!(moved <= limit(Duration::from_millis(100)), "{moved:?}");
}

/// A dial whose SYN nobody answers ends at the connect limit, and no call waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_syn_dropped() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let dials = stalled(&mut rig, &load, Stage::Syn, (2, 3)).await;
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    let recovery = reports.recovery(fault);
    let figures = ended_at_the_limit(&dials);
    rig.score("11", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
}

/// The limit covers what comes after the connect as well: a server that accepts, or even begins to speak, and then is
/// silent is given up at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_silence_after_accept() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let mut dials = Vec::new();
    for (ninths, stage) in [
        (4, Stage::Accept),
        (5, Stage::Preface),
        (6, Stage::Settings),
    ] {
        dials.extend(stalled(&mut rig, &load, stage, (ninths, 9)).await);
    }
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    let recovery = reports.recovery(fault);
    let figures = ended_at_the_limit(&dials);
    rig.score("12", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
}

/// What can be wrong with a Unix socket's path has an error that says so; nothing is dialled without pause; and a server
/// that is back is found by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_53_unix_socket_gone_and_back() {
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let scratch = Scratch::new();
    let path = scratch.path("a.sock");
    let mut server = EchoServer::start_unix("a", &path);
    let side = Side::start(Connector::unix(&path)).await;
    let mut ids = 1..;
    let mut report = Report::default();

    // Without its file the server goes on with the connections that it has.
    fs::remove_file(&path).unwrap();
    report = report.joined(some_calls(&side.channel, &mut ids).await);
    assert_eq!(side.dials.count(), 1);
    block_in_place(|| server.kill());
    fails_as(&side, ErrorKind::NotFound, "there is no such file").await;

    server.restart();
    let restarted = Instant::now();
    wait_until(LIMIT, || side.channel.status().state == State::Ready).await;
    let reconnect = restarted.elapsed();
    report = report.joined(some_calls(&side.channel, &mut ids).await);
    // The file of a dead server stays.
    block_in_place(|| server.kill());
    fails_as(&side, ErrorKind::ConnectionRefused, "nothing listens").await;
    side.channel.close(LIMIT).await;

    let dials = wrong_paths(&scratch).await;
    server.restart();
    let channel = settings(Connector::unix(&path)).connect().await.unwrap();
    report = report.joined(some_calls(&channel, &mut ids).await);
    assert_eq!(
        (report.failed.len(), server.journal().started()),
        (0, report.sent)
    );

    drop((channel, side));
    let twice = duplicates([server.journal().handled()]);
    drop(server);
    let figures = [
        ("reconnect_ms", reconnect.as_millis() as u64),
        ("dials", dials as u64),
        ("panics", panics.count()),
    ];
    report.score_with(
        "53",
        &twice,
        leaks.leaked().await,
        Some(reconnect),
        &figures,
    );
    assert_eq!(panics.count(), 0);
    assert!(reconnect <= limit(Duration::from_secs(2)), "{reconnect:?}");
}

/// Channels to paths where no server can be reached. Gives the number of dials.
async fn wrong_paths(scratch: &Scratch) -> usize {
    let full = scratch.path("full.sock");
    let _full = full_queue(&full);
    let directory = scratch.path("directory");
    fs::create_dir(&directory).unwrap();
    let file = scratch.path("file");
    fs::write(&file, "no socket").unwrap();
    let locked = scratch.path("locked.sock");
    let _locked = UnixListener::bind(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let mut cases = vec![
        (full, ErrorKind::ResourceBusy, "its queue is full"),
        (directory, ErrorKind::InvalidInput, "is a directory"),
        (file, ErrorKind::InvalidInput, "is a regular file"),
    ];
    // The superuser may write to every socket, so this case needs another user.
    if UnixStream::connect(&locked).is_err() {
        cases.push((locked, ErrorKind::PermissionDenied, "may not write"));
    }
    let mut dials = 0;
    for (path, kind, words) in cases {
        let side = Side::start_lazy(Connector::unix(&path));
        fails_as(&side, kind, words).await;
        dials += side.dials.count();
    }
    dials
}

/// Waits for three dials that fail like this and no sooner than the backoff allows; then a call fails with these words.
async fn fails_as(side: &Side, kind: ErrorKind, words: &str) {
    let began = Instant::now();
    let failed = || {
        let mut dials = side.dials.all();
        dials.retain(|dial| dial.began >= began);
        dials
    };
    wait_until(LIMIT, || {
        failed().iter().filter(|dial| dial.error.is_some()).count() >= 3
    })
    .await;
    let dials = failed();
    let most = most_dials(began.elapsed());
    assert!(dials.len() <= most, "{} dials, not {most}", dials.len());
    assert!(
        dials
            .iter()
            .all(|dial| dial.error.is_none_or(|error| error == kind)),
        "{dials:?}"
    );

    let status = call(side.channel.clone(), 0).await.unwrap_err();
    let error = Error::from_status(&status).expect("the channel's error");
    assert!(
        error.is_no_endpoint() && !error.maybe_processed(),
        "{error:?}"
    );
    assert!(error.to_string().contains(words), "{error}");
    let status = &side.channel.status().endpoints[0];
    assert!(
        status.last_error.as_ref().unwrap().contains(words),
        "{status:?}"
    );
}

/// A listener whose queue is full: connecting fails at once, until somebody accepts.
fn full_queue(path: &Path) -> (Socket, Vec<Socket>) {
    let socket = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let address = SockAddr::unix(path).unwrap();
    let listener = socket();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let mut queue = Vec::new();
    loop {
        let client = socket();
        match client.connect(&address) {
            Ok(()) => queue.push(client),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return (listener, queue);
            }
        }
    }
}

/// A few calls, one after the other.
async fn some_calls(channel: &Channel, ids: &mut RangeFrom<u64>) -> Report {
    let channel = channel.clone();
    let load = Load::new(200.0).duration(Duration::from_millis(100));
    let load = load.first_id(ids.nth(20).unwrap());
    load.run(move |id| call(channel.clone(), id)).await
}

/// Puts a stall in the place of the first server until this part of the row's time is over, and each channel has given
/// up a dial. Gives those dials.
async fn stalled(rig: &mut Rig, load: &Loads, stage: Stage, until: (u32, u32)) -> Vec<Dialled> {
    let addr = rig.servers[0].addr();
    let stall = block_in_place(|| {
        rig.servers[0].kill();
        Stall::at(addr, stage)
    });
    let address = rig.address(0);
    let began = Instant::now();
    let given_up = |side: &Side| {
        let mut dials = side.dials.to(&address, began);
        dials.retain(|dial| dial.lasted.is_some());
        dials
    };
    let both = || [given_up(&rig.retrying), given_up(&rig.single)];
    wait_until(LIMIT, || both().iter().all(|dials| !dials.is_empty())).await;
    load.part(until.0, until.1).await;
    assert_eq!(load.retrying.not_ok(), 0, "{stage:?}");
    // Before the stall goes and cuts those under way short.
    let dials = both().concat();
    drop(stall);
    dials
}

/// Asserts that each of these dials ended at the connect limit. Gives the row's figures.
fn ended_at_the_limit(dials: &[Dialled]) -> [(&'static str, u64); 3] {
    let lasted: Vec<_> = dials.iter().filter_map(|dial| dial.lasted).collect();
    let shortest = lasted.iter().min().unwrap();
    let longest = lasted.iter().max().unwrap();
    assert!(*shortest >= CONNECT, "{dials:?}");
    assert!(
        *longest <= CONNECT + limit(Duration::from_millis(50)),
        "{dials:?}"
    );
    assert!(dials.iter().all(|dial| dial.error.is_none()), "{dials:?}");
    [
        ("dials", dials.len() as u64),
        ("shortest_ms", shortest.as_millis() as u64),
        ("longest_ms", longest.as_millis() as u64),
    ]
}
