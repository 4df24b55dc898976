//! Proves the test support itself, against tonic's own client: echo servers, leak check, load.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use support::calls::{call, client, request};
use support::journal::{Journal, duplicates};
use support::leak::{Leak, LeakCheck, alone};
use support::load::Load;
use support::report::wrong;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::thread::ServerThread;
use support::wait::{wait_equal, wait_until, within};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use trunkline_proto::{EchoReply, EchoRequest};

const LIMIT: Duration = Duration::from_secs(5);

async fn all_four_kinds(server: &EchoServer) {
    let mut client = client(&server.uri());

    let reply = client.unary(request(1)).await.unwrap().into_inner();
    let expected = EchoReply {
        id: 1,
        payload: b"payload".to_vec(),
        server: server.name().to_owned(),
        sequence: 0,
    };
    assert_eq!(reply, expected);

    let asked = EchoRequest {
        repeat: 3,
        ..request(2)
    };
    let replies = client.server_stream(asked).await.unwrap().into_inner();
    let sequence: Vec<_> = replies.map(|reply| reply.unwrap().sequence).collect().await;
    assert_eq!(sequence, [0, 1, 2]);

    let messages = tokio_stream::iter([request(3), request(3)]);
    let reply = client.client_stream(messages).await.unwrap().into_inner();
    assert_eq!(reply.payload, b"payloadpayload");

    let messages = tokio_stream::iter([request(4), request(5)]);
    let replies = client.bidi_stream(messages).await.unwrap().into_inner();
    let ids: Vec<_> = replies.map(|reply| reply.unwrap().id).collect().await;
    assert_eq!(ids, [4, 5]);

    let journal = server.journal();
    wait_equal(LIMIT, 4, || journal.finished()).await;
    assert_eq!(journal.started(), 4);
    assert_eq!(journal.in_flight(), 0);
    assert_eq!(journal.accepted(), 1);
    assert_eq!(journal.open(), 1);
    let handled: Vec<_> = journal.handled().into_iter().collect();
    assert_eq!(handled, [(1, 1), (2, 1), (3, 1), (4, 1)]);
    drop(client);
    wait_equal(LIMIT, 0, || journal.open()).await;
}

#[tokio::test]
async fn echo_server_answers_all_four_kinds_over_tcp_and_leaves_nothing() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    all_four_kinds(&server).await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn echo_server_answers_all_four_kinds_over_unix_and_leaves_nothing() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = EchoServer::start_unix("a", scratch.path("a.sock"));
    all_four_kinds(&server).await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn echo_server_fails_as_the_request_asks() {
    let _alone = alone().await;
    let server = EchoServer::start_tcp("a");
    let mut client = client(&server.uri());
    let failing = EchoRequest {
        fail_code: Code::Aborted as u32,
        ..request(1)
    };
    let status = client.unary(failing.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);

    let status = client.server_stream(failing.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);

    let after_two = EchoRequest {
        repeat: 2,
        ..failing.clone()
    };
    let mut replies = client.server_stream(after_two).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().sequence, 0);
    assert_eq!(replies.message().await.unwrap().unwrap().sequence, 1);
    assert_eq!(replies.message().await.unwrap_err().code(), Code::Aborted);

    let messages = tokio_stream::iter([request(1), failing]);
    let status = client.client_stream(messages).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);

    wait_equal(LIMIT, 4, || server.journal().finished()).await;
    assert_eq!(duplicates([server.journal().handled()]), [1]);
}

#[tokio::test]
async fn echo_server_fails_the_share_of_calls_it_is_told_to() {
    let _alone = alone().await;
    let server = EchoServer::start_tcp("a");
    let mut client = client(&server.uri());
    server.behaviour().fail(0.25, Code::Unavailable);
    server.behaviour().set_pushback(Some("300"));
    let mut failed = 0;
    for id in 0..100 {
        if let Err(status) = client.unary(request(id)).await {
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(
                status.metadata().get("grpc-retry-pushback-ms").unwrap(),
                "300"
            );
            failed += 1;
        }
    }
    assert_eq!(failed, 25);
    server.behaviour().heal();
    client.unary(request(100)).await.unwrap();
}

#[tokio::test]
async fn echo_server_keeps_to_its_stream_limit_and_message_size() {
    let _alone = alone().await;
    let server = EchoServer::builder("a")
        .max_concurrent_streams(2)
        .max_message_size(1024)
        .delay(Duration::from_millis(5))
        .tcp();
    let mut client = client(&server.uri());
    // Until SETTINGS came, calls above the limit would be refused.
    client.unary(request(0)).await.unwrap();
    let calls = (1..10).map(|id| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(request(id)).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.journal().peak_in_flight(), 2);
    let large = EchoRequest {
        payload: vec![0; 2048],
        ..request(10)
    };
    let status = client.unary(large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn echo_server_retires_connections_of_age() {
    let _alone = alone().await;
    let server = EchoServer::builder("a")
        .max_connection_age(Duration::from_millis(200))
        .tcp();
    client(&server.uri()).unary(request(1)).await.unwrap();
    let mut client = client(&server.uri());
    client.unary(request(2)).await.unwrap();
    wait_equal(LIMIT, 0, || server.journal().open()).await;
    client.unary(request(3)).await.unwrap();
    assert_eq!(server.journal().accepted(), 3);
}

/// Starts a call that never ends by itself, and waits until the server has it.
async fn hang(server: &EchoServer, id: u64) -> JoinHandle<Result<EchoReply, Status>> {
    let hanging = call(
        &server.uri(),
        EchoRequest {
            delay_ms: u32::MAX,
            ..request(id)
        },
    );
    wait_until(LIMIT, || server.journal().handled().contains_key(&id)).await;
    hanging
}

async fn kill_and_restart(mut server: EchoServer) {
    let hanging = hang(&server, 1).await;
    server.kill();
    let lost = within(LIMIT, "the end of the call", hanging).await.unwrap();
    lost.unwrap_err();
    assert_eq!(server.journal().cut(), 1);
    assert_eq!(server.journal().cancelled(), 0);
    assert_eq!(server.journal().open(), 0);

    let refused = call(&server.uri(), request(2)).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);

    for id in 3..6 {
        server.restart();
        let reply = call(&server.uri(), request(id)).await.unwrap().unwrap();
        assert_eq!(reply.id, id);
    }
    assert_eq!(server.journal().handled().len(), 4);
    assert_eq!(duplicates([server.journal().handled()]), [0; 0]);
}

#[tokio::test]
async fn killed_server_is_refused_and_comes_back_on_the_same_port() {
    let leaks = LeakCheck::start().await;
    kill_and_restart(EchoServer::start_tcp("a")).await;
    leaks.finish().await;
}

#[tokio::test]
async fn killed_server_comes_back_on_the_same_unix_path() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    kill_and_restart(EchoServer::start_unix("a", scratch.path("a.sock"))).await;
    leaks.finish().await;
}

#[tokio::test]
async fn killed_server_sends_no_goaway() {
    let _alone = alone().await;
    let mut server = EchoServer::start_tcp("a");
    let io = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    wait_equal(LIMIT, 1, || server.journal().open()).await;
    server.kill();
    let end = connection.await.unwrap();
    assert!(!end.is_err_and(|error| error.is_go_away()));
    drop(sender);
}

#[tokio::test]
async fn shut_down_server_lets_calls_finish() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let slow = call(
        &server.uri(),
        EchoRequest {
            delay_ms: 100,
            ..request(1)
        },
    );
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    server.shutdown().await;
    assert!(!server.is_running());
    assert_eq!(server.journal().finished(), 1);
    slow.await.unwrap().unwrap();
    call(&server.uri(), request(2)).await.unwrap().unwrap_err();
    server.restart();
    call(&server.uri(), request(3)).await.unwrap().unwrap();
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn cancelled_calls_are_counted() {
    let _alone = alone().await;
    let server = EchoServer::start_tcp("a");
    let hanging = hang(&server, 1).await;
    assert_eq!(server.journal().in_flight(), 1);
    hanging.abort();
    wait_equal(LIMIT, 1, || server.journal().cancelled()).await;
    assert_eq!(server.journal().in_flight(), 0);
    assert_eq!(server.journal().finished(), 0);
}

#[test]
fn panics_of_calls_and_connections_are_counted() {
    let journal = Arc::new(Journal::default());
    let marks = (journal.call(1), journal.connection());
    let panicking = AssertUnwindSafe(move || {
        let _marks = marks;
        panic!("in a call");
    });
    catch_unwind(panicking).unwrap_err();
    assert_eq!(journal.panicked(), 2);
    assert_eq!((journal.in_flight(), journal.open()), (0, 0));
}

#[tokio::test]
#[should_panic(expected = "in the thread")]
async fn panic_of_a_server_thread_is_passed_on() {
    let mut thread = ServerThread::start("panics", || async { panic!("in the thread") });
    thread.ended().await;
}

#[tokio::test]
async fn leak_check_finds_tasks_and_sockets_and_passes_once_they_are_gone() {
    let leaks = LeakCheck::start().await;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(ended);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let leak = leaks.leaked().await;
    assert_eq!((leak.tasks, leak.sockets, leak.total()), (1, 1, 2));

    let leaks = LeakCheck::start().await;
    drop((end, socket));
    task.await.unwrap().unwrap_err();
    leaks.finish().await;
}

#[tokio::test]
#[should_panic(expected = "tasks: 1")]
async fn leak_check_panics_with_the_numbers() {
    let leaks = LeakCheck::start().await;
    tokio::spawn(std::future::pending::<()>());
    leaks.finish().await;
}

#[tokio::test]
#[should_panic(expected = "never finished")]
async fn leak_check_must_be_finished() {
    drop(LeakCheck::start().await);
}

#[tokio::test]
#[should_panic(expected = "wanted 2 within 20ms, last saw 1")]
async fn waiting_has_a_limit() {
    wait_equal(Duration::from_millis(20), 2, || 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_sees_a_killed_server_and_its_recovery() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let client = client(&server.uri());
    let load = Load::new(500.0).start(move |id| {
        let mut client = client.clone();
        async move {
            let reply = client.unary(request(id)).await?.into_inner();
            if reply.id == id {
                Ok(())
            } else {
                Err(wrong("another call's reply"))
            }
        }
    });
    wait_until(LIMIT, || load.ok() >= 50).await;
    server.kill();
    wait_until(LIMIT, || load.not_ok() >= 10).await;
    server.restart();
    let healed = load.elapsed();
    let report = load.finish().await;
    assert_eq!(report.sent, 500);
    assert_eq!(report.sent, report.ok + report.failed.len() as u64);
    assert!(report.failed.len() >= 10);
    assert!(report.latency(0.5) <= report.latency(0.99));
    let twice = duplicates([server.journal().handled()]);
    drop(server);
    let recovery = report.recovery(healed);
    report.score("selftest", &twice, leaks.leaked().await, Some(recovery));
}

#[tokio::test(start_paused = true)]
async fn load_tells_lost_wrong_and_failed_apart() {
    let load = Load::new(10.0).duration(Duration::from_millis(400));
    let report = load
        .run(|id| async move {
            match id {
                1 => Ok(()),
                2 => Err(Status::internal("failed")),
                3 => Err(wrong("wrong")),
                _ => std::future::pending().await,
            }
        })
        .await;
    assert_eq!((report.sent, report.ok), (4, 1));
    assert_eq!(report.failed[0].id, 2);
    assert_eq!(report.wrong[0].id, 3);
    assert_eq!(report.lost[0].0, 4);
    let recovery = report.recovery(Duration::from_millis(350));
    // Made at 300 ms, lost 1,050 ms later, which is 1,000 ms after it healed.
    assert_eq!(recovery.as_millis(), 1000);
    let leak = Leak {
        tasks: 1,
        sockets: 2,
    };
    assert_eq!(
        report.line("self", &[7], leak, Some(recovery)),
        r#"{"row":"self","lost":1,"wrong":1,"dup":1,"failed":1,"leak":3,"recover_ms":1000}"#
    );
}
