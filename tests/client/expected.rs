//! All that an error says, as a test expects it.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};
use trunkline::{CallOptions, Channel, Delivery, Error, Stage};

use super::calls::{ask, raw};
use crate::support::calls::request;
use crate::support::wait::within;

/// How long a call that is to fail may take.
const LIMIT: Duration = Duration::from_secs(5);

/// All there is to ask an error.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The only question `is_…` that is answered with yes.
    pub is: &'static str,
    pub code: Code,
    pub stage: Option<Stage>,
    pub delivery: Delivery,
    pub endpoint: Option<String>,
    pub attempts: u32,
    /// With `*` for what is not always the same.
    pub message: String,
}

type Question = fn(&Error) -> bool;

const QUESTIONS: [(&str, Question); 10] = [
    ("config", Error::is_config),
    ("connect", Error::is_connect),
    ("timeout", Error::is_timeout),
    ("pool_wait", Error::is_pool_wait),
    ("no_endpoint", Error::is_no_endpoint),
    ("refused", Error::is_refused),
    ("disconnected", Error::is_disconnected),
    ("protocol", Error::is_protocol),
    ("dropped", Error::is_dropped),
    ("closed", Error::is_closed),
];

impl Expected {
    /// Unavailable, nothing sent, one attempt, no endpoint concerned.
    pub fn new(is: &'static str, stage: Stage, message: &str) -> Self {
        Self {
            is,
            code: Code::Unavailable,
            stage: Some(stage),
            delivery: Delivery::NotSent,
            endpoint: None,
            attempts: 1,
            message: message.to_owned(),
        }
    }

    /// Holds the error against it.
    pub fn check(&self, error: &Error) {
        let yes = QUESTIONS.iter().filter(|(_, question)| question(error));
        let yes: Vec<_> = yes.map(|(name, _)| *name).collect();
        assert_eq!(yes, [self.is], "{error:?}");
        assert_eq!(error.code(), self.code, "{error:?}");
        assert_eq!(error.stage(), self.stage, "{error:?}");
        assert_eq!(error.delivery(), self.delivery, "{error:?}");
        assert_eq!(error.endpoint(), self.endpoint.as_deref(), "{error:?}");
        assert_eq!(error.attempts(), self.attempts, "{error:?}");
        assert!(
            fits(&self.message, &error.to_string()),
            "{error} is not {}",
            self.message
        );
        let unsent = matches!(self.delivery, Delivery::NotSent | Delivery::Refused);
        assert_eq!(error.maybe_processed(), !unsent);
        let status = error.source().and_then(|it| it.downcast_ref::<Status>());
        assert_eq!(status.map(Status::code), Some(self.code));
    }

    /// The same for what a generated client returned.
    pub fn check_status(&self, status: &Status) {
        self.check(Error::from_status(status).expect("an error of the crate's own"));
        assert_eq!(status.code(), self.code);
        assert!(fits(&self.message, status.message()), "{status}");
    }

    /// The same call through a generated client, then as a raw request.
    pub async fn check_calls(&self, channel: &Channel, options: CallOptions) {
        let status = within(LIMIT, "the call", ask(channel, request(1), options)).await;
        self.check_status(&status.unwrap_err());
        let sent = within(LIMIT, "the raw call", channel.send(raw(2, options))).await;
        self.check(&sent.unwrap_err());
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}
