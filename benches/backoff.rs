//! What retries cost: a delay, a deposit (every call makes one), a withdrawal.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use trunkline::bench::Budget;
use trunkline::{Backoff, BudgetLimits};

fn backoff(c: &mut Criterion) {
    let backoff = Backoff::calls();
    c.bench_function("backoff/delay", |b| {
        b.iter(|| backoff.delay(black_box(3), black_box(0.3)));
    });
}

fn budget(c: &mut Criterion) {
    let now = Duration::from_millis(123_456_789);
    let mut group = c.benchmark_group("budget");

    let budget = Budget::new(BudgetLimits::default());
    group.bench_function("deposit", |b| b.iter(|| budget.deposit(black_box(now))));

    let generous = BudgetLimits::default().min_per_second(u32::MAX);
    let budget = Budget::new(generous);
    group.bench_function("withdraw", |b| {
        b.iter(|| budget.spend(black_box(now)));
    });
    group.bench_function("withdraw and give back", |b| {
        b.iter(|| budget.withdraw_and_give_back(black_box(now)));
    });

    let empty = BudgetLimits::default().min_per_second(0);
    let budget = Budget::new(empty);
    group.bench_function("withdraw refused", |b| {
        b.iter(|| budget.withdraw_and_give_back(black_box(now)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = backoff, budget
}
criterion_main!(benches);
