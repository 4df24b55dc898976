//! What the pool costs a call: a lease and its return, on one and on two threads.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use trunkline::bench::Pool;

fn lease(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let pool = Arc::new(runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(peer(listener));
        Pool::connect(&address).await.unwrap()
    }));

    let mut group = c.benchmark_group("lease and return");
    group.bench_function("1 thread", |b| b.iter(|| assert!(pool.lease_and_return())));
    group.bench_function("2 threads", |b| {
        b.iter_custom(|rounds| {
            let barrier = Arc::new(Barrier::new(2));
            let threads = [(); 2].map(|()| {
                let (pool, barrier) = (Arc::clone(&pool), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..rounds {
                        assert!(pool.lease_and_return());
                    }
                    start.elapsed()
                })
            });
            threads
                .map(|thread| thread.join().unwrap())
                .into_iter()
                .max()
                .unwrap()
        });
    });
}

/// An HTTP/2 server that only keeps its connection open.
async fn peer(listener: tokio::net::TcpListener) {
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while connection.accept().await.is_some() {}
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = lease
}
criterion_main!(benches);
