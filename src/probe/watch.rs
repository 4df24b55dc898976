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
}

/// A connection with fewer streams than this needs them for calls.
const FEW: usize = 4;

/// Listens to the server as long as it speaks.
pub(super) async fn watch(patient: &Patient) -> Over {
    let since = patient.asks();
    let answered = patient.subchannel.health.answered();
    let Ok(lease) = timeout(patient.limit(), patient.lease()).await else {
        return Over::Busy;
    };
    let Some(lease) = lease else {
        return Over::Busy;
    };
    if lease.connection().slots().limit() < FEW {
        return Over::MustBeAsked;
    }
    let mut statements = match timeout(patient.limit(), first(patient, &lease)).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(_)) if lease.connection().end().is_some() => return Over::Moved,
        Ok(Err(silence)) => return over(patient, silence, since),
        // As for a question.
        Err(_) if patient.subchannel.health.answered() > answered => return Over::Busy,
        Err(_) => return Over::Ended(patient.no_answer()),
    };
    loop {
        match timeout(patient.means.check.interval, statements.next()).await {
            Ok(Ok(Some(serving))) => learn(patient, serving),
            Ok(Ok(None)) => {
                let why = "the health service ended its answer".into();
                return Over::Ended(Answer::Failed(why));
            }
            Ok(Err(_)) | Err(_) if lease.connection().end().is_some() => return Over::Moved,
            Ok(Err(silence)) => return over(patient, silence, since),
            // Nothing new, and nothing lost.
            Err(_) => {}
        }
    }
}

/// What follows from that, where calls had so many answers when the server was asked before.
fn over(patient: &Patient, silence: Silence, since: u64) -> Over {
    match silence {
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
