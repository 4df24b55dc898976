//! Numbers as lines of text.

use trunkline::{ChannelStats, State};

use crate::load::Counts;
use crate::show::Followed;

/// The table on a terminal: who served what share of the `recent` calls, and how all of them went.
pub(crate) fn live(
    endpoints: &[Followed],
    recent: &Counts,
    all: &Counts,
    stats: ChannelStats,
) -> Vec<String> {
    let head = "server  weight  state              reconnects  failed dials  share";
    let rows = endpoints.iter().map(|endpoint| {
        let status = &endpoint.status;
        let colour = match status.state {
            State::Ready => 32,
            State::Idle | State::Connecting => 33,
            State::TransientFailure | State::Shutdown => 31,
        };
        let share = share(recent, endpoint);
        format!(
            "{:6}  {:6}  \x1b[{colour}m{:17}\x1b[0m  {:10}  {:12}  {share:3.0} % {}",
            endpoint.name(),
            status.weight,
            status.state,
            endpoint.reconnects(),
            endpoint.status.connection_attempts_failed,
            "█".repeat((share / 8.0).round() as usize),
        )
    });
    let mut lines = vec![String::new(), head.to_owned()];
    lines.extend(rows);
    lines.push(sums(all, stats));
    lines
}

/// The same on one line, for where no table can be.
pub(crate) fn line(
    endpoints: &[Followed],
    recent: &Counts,
    all: &Counts,
    stats: ChannelStats,
) -> String {
    let shares: Vec<_> = endpoints
        .iter()
        .map(|endpoint| format!("{} {:.0} %", endpoint.name(), share(recent, endpoint)))
        .collect();
    format!("{}; {}", shares.join(", "), sums(all, stats))
}

/// At the end: who served how many of the calls while nothing happened, against the weights.
pub(crate) fn shares(endpoints: &[Followed], quiet: &Counts) -> Vec<String> {
    let weights = endpoints.iter().map(|endpoint| endpoint.status.weight);
    let weights = f64::from(weights.sum::<u32>());
    let head = "server  weight  calls   share  by weight  reconnects  failed dials";
    let rows = endpoints.iter().map(|endpoint| {
        format!(
            "{:6}  {:6}  {:5}  {:4.1} %     {:4.1} %  {:10}  {:12}",
            endpoint.name(),
            endpoint.status.weight,
            quiet.served_by(endpoint.name()),
            share(quiet, endpoint),
            100.0 * f64::from(endpoint.status.weight) / weights,
            endpoint.reconnects(),
            endpoint.status.connection_attempts_failed,
        )
    });
    let mut lines = vec![String::new(), head.to_owned()];
    lines.extend(rows);
    lines
}

/// At the end: what became of all calls.
pub(crate) fn totals(all: &Counts, stats: ChannelStats) -> Vec<String> {
    let lost = all.sent - all.ok - all.failed;
    let rows = [
        ("calls", all.sent),
        ("ok", all.ok),
        ("failed", all.failed),
        ("lost", lost),
        ("retried", stats.retries),
        ("resent", stats.resends),
    ];
    let mut lines = vec![String::new()];
    lines.extend(rows.map(|(what, count)| format!("{what:7} {count:5}")));
    lines.push(String::new());
    lines.push(match &all.failure {
        Some(failure) => format!("A call failed: {failure}"),
        None if lost > 0 => "Calls were lost.".to_owned(),
        None => "Every call was answered.".to_owned(),
    });
    lines
}

fn sums(all: &Counts, stats: ChannelStats) -> String {
    format!(
        "calls {}, ok {}, failed {}, retried {}, resent {}",
        all.sent, all.ok, all.failed, stats.retries, stats.resends
    )
}

/// The part of the replies that came from the endpoint, in percent.
fn share(counts: &Counts, endpoint: &Followed) -> f64 {
    100.0 * counts.served_by(endpoint.name()) as f64 / counts.ok.max(1) as f64
}
