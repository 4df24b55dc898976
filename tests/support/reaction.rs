//! What a raw peer that answers by itself does about a request.

use std::time::Duration;

use bytes::Bytes;
use trunkline_proto::{EchoReply, EchoRequest, Message};

use super::frames::{Frame, code};

/// A request, as far as a reaction may depend on it.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// The connection's number at its peer, from 0.
    pub connection: u64,
    pub stream: u32,
    /// The request's number over all connections, from 0.
    pub nth: u64,
    /// The request's number on its connection, from 0.
    pub nth_on_connection: u64,
    /// The requests being answered on its connection, this one included.
    pub open: usize,
    /// The payload of its first gRPC message; `None` when it has none.
    pub message: Option<Bytes>,
}

impl RequestInfo {
    /// The message as the echo service's request.
    pub fn echo(&self) -> Option<EchoRequest> {
        EchoRequest::decode(self.message.clone()?).ok()
    }
}

/// What to do about a request.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// OK with one message of this payload.
    Answer(Bytes),
    /// This gRPC status in place of response headers.
    Fail(i32, String),
    /// The same without a message and with these header fields.
    FailWith(i32, Vec<(&'static str, &'static str)>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// These frames, whatever they are.
    Frames(Vec<Frame>),
    /// GOAWAY, then another reaction. From then on nobody looks at requests above the last stream.
    GoAway {
        last_stream: u32,
        code: u32,
        debug: String,
        then: Box<Reaction>,
    },
    /// SETTINGS, then another reaction.
    Settings(Vec<(u16, u32)>, Box<Reaction>),
    /// Another reaction after a while; the connection goes on meanwhile.
    After(Duration, Box<Reaction>),
    /// Nothing, ever.
    Silence,
    /// The same, and the request is not even looked at.
    Ignore,
    /// The connection stays open and is neither read nor written any more.
    Freeze,
    /// The connection is closed with FIN.
    Close,
    /// The connection is closed with a TCP RST.
    Abort,
}

impl Reaction {
    /// What the echo service answers to this request, in the name of `server`.
    pub fn echo(request: &RequestInfo, server: &str) -> Self {
        let request = request.echo().expect("a request of the echo service");
        let reply = EchoReply {
            id: request.id,
            payload: request.payload,
            server: server.to_owned(),
            sequence: 0,
        };
        Self::Answer(reply.encode_to_vec().into())
    }

    /// REFUSED_STREAM.
    pub fn refuse() -> Self {
        Self::Reset(code::REFUSED_STREAM)
    }

    /// A GOAWAY before this reaction.
    pub fn after_goaway(self, last_stream: u32, code: u32, debug: &str) -> Self {
        Self::GoAway {
            last_stream,
            code,
            debug: debug.to_owned(),
            then: Box::new(self),
        }
    }

    /// SETTINGS before this reaction.
    pub fn after_settings(self, settings: &[(u16, u32)]) -> Self {
        Self::Settings(settings.to_vec(), Box::new(self))
    }

    /// A wait before this reaction.
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    /// Whether a server that reacts like this may have processed the request: not when it refuses the stream, or says
    /// GOAWAY with a lower last stream.
    pub fn may_have_processed(&self, stream: u32) -> bool {
        match self {
            Self::Reset(code) => *code != code::REFUSED_STREAM,
            Self::GoAway {
                last_stream, then, ..
            } => stream <= *last_stream && then.may_have_processed(stream),
            Self::After(_, then) | Self::Settings(_, then) => then.may_have_processed(stream),
            Self::Ignore => false,
            _ => true,
        }
    }

    /// Whether it lets the client repeat what may have been processed: by the status UNAVAILABLE.
    pub fn gives_leave(&self) -> bool {
        match self {
            Self::Fail(code, _) | Self::FailWith(code, _) => *code == 14,
            Self::GoAway { then, .. } | Self::After(_, then) | Self::Settings(_, then) => {
                then.gives_leave()
            }
            _ => false,
        }
    }
}
