//! What is to come of it, whatever happens wherever it happens.

use tonic::Code;
use trunkline::{Delivery, Stage};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// `Connector::connect`.
    Connection,
    /// `Channel::acquire`: a pick and a lease.
    Lease,
    /// A call, to the end of its response.
    Call,
}

/// Where it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Place {
    Discovery,
    Resolve,
    Connect,
    /// Before the peer's SETTINGS are read.
    Handshake,
    Pick,
    /// The only stream is taken.
    Stream,
    RequestHeaders,
    RequestBody,
    ResponseHeaders,
    ResponseMessage,
    ResponseTrailers,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happens {
    Nothing,
    Failure,
    /// It goes on after a while.
    Delay,
    /// It fails after a while.
    LateFailure,
    /// It never goes on, and the place's own limit passes.
    Limit,
    /// It never goes on, and the deadline of what is wanted passes.
    Deadline,
    /// Whoever wants it goes away.
    Cancel,
}

pub const PLACES: [Place; 11] = [
    Place::Discovery,
    Place::Resolve,
    Place::Connect,
    Place::Handshake,
    Place::Pick,
    Place::Stream,
    Place::RequestHeaders,
    Place::RequestBody,
    Place::ResponseHeaders,
    Place::ResponseMessage,
    Place::ResponseTrailers,
];

/// An error: the question that it answers with yes, its code, stage, and what is known of the request.
pub type End = (&'static str, Code, Stage, Delivery);

/// How a cell ends; `None` if there is no such cell.
pub fn expected(want: Want, place: Place, happens: Happens) -> Option<Result<(), End>> {
    use Code::{DeadlineExceeded, Internal, Unavailable};
    use Delivery::{MaybeProcessed, NotSent};
    use Place::*;

    let in_reach = match want {
        Want::Connection => place <= Handshake,
        Want::Lease => place <= Stream,
        Want::Call => true,
    };
    let dials = matches!(place, Resolve | Connect | Handshake);
    let limits = match happens {
        Happens::Limit => dials || place == Stream,
        // A reset at once can take the place of headers that were not written yet.
        Happens::Failure => !matches!(place, ResponseMessage | ResponseTrailers),
        // Nothing fails a call that waits to be picked for or for a stream, but the end of what it waits for.
        Happens::LateFailure => !matches!(place, Pick | Stream),
        // A lease has the channel's deadline, and a dial no longer limit than that.
        Happens::Deadline => !(dials && want == Want::Lease),
        _ => true,
    };
    if !(in_reach && limits) {
        return None;
    }
    // What a connection is wanted for waits with it, whatever keeps it, until its own limit.
    if want == Want::Connection {
        let stage = match place {
            // A dial does not say how far it is.
            Resolve if happens != Happens::Limit => Stage::Resolve,
            Handshake => Stage::Handshake,
            _ => Stage::Connect,
        };
        let stage = if happens == Happens::Deadline {
            Stage::Connect
        } else {
            stage
        };
        return Some(match happens {
            Happens::Nothing | Happens::Delay | Happens::Cancel => Ok(()),
            _ => Err(("timeout", Unavailable, stage, NotSent)),
        });
    }
    let stage = match place {
        Discovery | Resolve | Connect | Handshake | Pick => Stage::Pick,
        Stream => Stage::Pool,
        RequestHeaders | RequestBody | ResponseHeaders => Stage::Response,
        ResponseMessage | ResponseTrailers => Stage::Body,
    };
    let delivery = if place < RequestHeaders {
        NotSent
    } else {
        MaybeProcessed
    };
    Some(match happens {
        Happens::Nothing | Happens::Delay | Happens::Cancel => Ok(()),
        Happens::Deadline => Err(("timeout", DeadlineExceeded, stage, delivery)),
        Happens::Failure | Happens::LateFailure | Happens::Limit => Err(match place {
            Discovery | Resolve | Connect | Handshake | Pick => {
                ("no_endpoint", Unavailable, stage, delivery)
            }
            Stream => ("pool_wait", Unavailable, stage, delivery),
            RequestHeaders => ("disconnected", Unavailable, stage, delivery),
            // With the first poll it fails before anything was sent.
            RequestBody if happens == Happens::Failure => {
                ("request", Code::DataLoss, Stage::Send, NotSent)
            }
            RequestBody => ("request", Code::DataLoss, Stage::Send, delivery),
            _ => ("protocol", Internal, stage, delivery),
        }),
    })
}
