//! What a call has to move and to hold.

#![cfg(target_pointer_width = "64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use http::Request;
use support::leak::LeakCheck;
use tonic::body::Body;
use trunkline::Connector;

/// Under tonic each call's future is moved to the heap, and thousands may wait there. This one has 1,560 bytes: a third of
/// them the call itself, and the largest of its waits, the one for the response with the request's head and its timer. It
/// had 3,160 when each wait had room of its own: what is alive at two awaits overlaps with nothing (see `call.rs`). The
/// rest is for other compilers.
const FUTURE: usize = 1_664;

#[tokio::test]
async fn the_future_of_a_call_stays_small() {
    let leaks = LeakCheck::start().await;
    let channel = Connector::tcp("localhost:1").connect_lazy().unwrap();
    let call = channel.send(Request::new(Body::empty()));
    // It borrows nothing, and may go to another thread.
    let task = |_: &(dyn Send + 'static)| {};
    task(&call);
    let size = size_of_val(&call);
    assert!(size <= FUTURE, "{size} bytes");
    drop((call, channel));
    leaks.finish().await;
}
