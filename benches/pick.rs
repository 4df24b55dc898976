//! The price of one pick: ns per pick and thread, by policy, size of the set and number of threads.
//!
//! `picker` is the picker alone, as a trait object. `set` loads it from an `ArcSwap` first, as a
//! call does. `call` adds what a call does to the load that the picker reads: it begins and ends there, and, where the
//! policy looks at latencies, was answered (without the two looks at the clock).

// Criterion's macros make undocumented items; a bench reads the real clock.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use trunkline::bench::in_flight;
use trunkline::{Balance, Candidate, Load, Pick, PickRequest, Picker, Policy};

/// Weights from 1 to 100, in no order, the same in each run.
fn candidates(count: u64) -> Vec<Candidate> {
    let mut rng = fastrand::Rng::with_seed(count);
    (0..count)
        .map(|identity| {
            let load = Arc::new(Load::default());
            Candidate::new(identity, rng.u32(1..=100)).with_load(load)
        })
        .collect()
}

/// Lets `threads` threads run `pick` at once, `iterations` times each, and returns the mean time
/// that one of them took.
fn contend(
    threads: u32,
    iterations: u64,
    pick: impl Fn(&PickRequest<'_>) -> Pick + Sync,
) -> Duration {
    let (mut headers, extensions) = (HeaderMap::new(), Extensions::new());
    headers.insert("user", HeaderValue::from_static("4f6b1c1e-user"));
    let request =
        PickRequest::new("/bench.Bench/Call", &headers, &extensions).at(Duration::from_secs(20));
    let start = Barrier::new(threads as usize);
    let run = || {
        let _ = pick(&request);
        start.wait();
        let began = Instant::now();
        for _ in 0..iterations {
            // The index, not the whole answer: copying that costs more than the pick.
            if let Pick::Endpoint(index) = pick(black_box(&request)) {
                black_box(index);
            }
        }
        began.elapsed()
    };
    let times = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join())
            .sum::<Duration>()
    });
    times / threads
}

fn pick(criterion: &mut Criterion) {
    let policies = [
        Balance::round_robin(),
        Balance::random(),
        Balance::weighted(),
        Balance::weighted_random(),
        Balance::least_request(),
        Balance::peak_ewma(),
        Balance::consistent_hash(HeaderName::from_static("user")),
    ];
    for policy in policies {
        let mut group = criterion.benchmark_group(policy.name());
        for count in [3, 100, 1_000, 10_000] {
            let candidates = candidates(count);
            let picker = policy.build(&candidates);
            let set: ArcSwap<Box<dyn Picker>> = ArcSwap::from_pointee(policy.build(&candidates));
            for threads in [1, 2] {
                group.bench_function(
                    BenchmarkId::new(format!("picker/{threads}"), count),
                    |bencher| {
                        bencher.iter_custom(|iterations| {
                            contend(threads, iterations, |request| picker.pick(request))
                        });
                    },
                );
                group.bench_function(
                    BenchmarkId::new(format!("set/{threads}"), count),
                    |bencher| {
                        bencher.iter_custom(|iterations| {
                            contend(threads, iterations, |request| set.load().pick(request))
                        });
                    },
                );
                let loads: Vec<_> = candidates.iter().map(Candidate::load).collect();
                let call = |request: &PickRequest<'_>| {
                    let pick = picker.pick(request);
                    if let Pick::Endpoint(index) = pick {
                        let latency = Duration::from_millis(1);
                        let timed = policy.uses_latency().then_some(latency);
                        in_flight(&loads[index], timed, request.now());
                    }
                    pick
                };
                group.bench_function(
                    BenchmarkId::new(format!("call/{threads}"), count),
                    |bencher| {
                        bencher.iter_custom(|iterations| contend(threads, iterations, call));
                    },
                );
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = pick
}
criterion_main!(benches);
