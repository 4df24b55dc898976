//! Is told by one endpoint: `grpc.health.v1.Health/Watch`, after
//! [gRFC A17](https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md).

use tokio::time::timeout;

use crate::health::Answer;
use crate::pool::Lease;

use super::attend::Patient;
use super::exchange::{self, Silence, Statements};
use super::wire::Word;

/// Why it is told no more.
pub(super) enum Over {
    /// The server can't do it, or has too few streams to give one away.
    MustBeAsked,
    /// The connection takes no more calls: another one is to be watched over.
    Moved,
    /// The stream ended, or never began to speak.
    Ended(Answer),
    /// No stream was free.
    Busy,
    /// There was no connection just then.
    Away,
}

/// A connection with fewer streams than this needs them for calls.
const FEW: usize = 4;

/// Listens to the server as long as it speaks.
pub(super) async fn watch(patient: &Patient) -> Over {
    let since = patient.asks();
    // Until its first word it is a question like others.
    let turn = patient.means.turns.acquire().await;
    let answered = patient.subchannel.health.answered();
    let Ok(lease) = timeout(patient.limit(), patient.lease()).await else {
        return Over::Busy;
    };
    let Some(lease) = lease else {
        return Over::Away;
    };
    if lease.connection().slots().limit() < FEW {
        return Over::MustBeAsked;
    }
    let mut statements = match timeout(patient.limit(), first(patient, &lease)).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(silence)) => return over(patient, &lease, silence, since).await,
        // As for a question.
        Err(_) if patient.subchannel.health.answered() > answered => return Over::Busy,
        Err(_) => return Over::Ended(patient.no_answer()),
    };
    drop(turn);
    loop {
        let next = tokio::select! {
            biased;
            next = statements.next() => next,
            () = lease.connection().has_fewer_than(FEW) => {
                return match lease.connection().end() {
                    // A server that is shutting down waits for this stream.
                    Some(_) => Over::Moved,
                    // Its limit has fallen.
                    None => Over::MustBeAsked,
                };
            }
        };
        match next {
            Ok(Some(serving)) => learn(patient, serving),
            Ok(None) => {
                let why = "the health service ended its answer".into();
                return Over::Ended(Answer::Failed(why));
            }
            Err(silence) => return over(patient, &lease, silence, since).await,
        }
    }
}

/// What follows from that, where calls had so many answers when the server was asked before.
async fn over(patient: &Patient, lease: &Lease, silence: Silence, since: u64) -> Over {
    // Lets the driver run, which may not have noticed yet that the connection is gone.
    tokio::task::yield_now().await;
    match silence {
        _ if lease.connection().end().is_some() => Over::Moved,
        Silence::Unimplemented => Over::MustBeAsked,
        Silence::Late if patient.subchannel.health.answered() > since => Over::Busy,
        Silence::Broken(_) if patient.is_contradicted(since) => Over::Busy,
        silence => Over::Ended(patient.answer_to(silence)),
    }
}

/// To the first statement.
async fn first(patient: &Patient, lease: &Lease) -> Result<Statements, Silence> {
    let (subchannel, means) = (&patient.subchannel, &patient.means);
    let mut statements = exchange::watch(subchannel, means, lease, &patient.service).await?;
    match statements.next().await? {
        Some(serving) => learn(patient, serving),
        None => {
            let why = "the health service said nothing".to_owned();
            return Err(Silence::Failed(why));
        }
    }
    Ok(statements)
}

fn learn(patient: &Patient, serving: Word) {
    patient.learn(patient.answer_of(serving));
    if serving == Word::Serving {
        // It will not say so again.
        patient.subchannel.health.standing_word();
    }
}
