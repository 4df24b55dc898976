//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::Failure;
use crate::failure::ejection::Ending;
use crate::failure::{FailureClient, Scenario};
use crate::handshake::Sessions;
use crate::many::ManyClient;
use crate::tails::{TailCase, TailClient};
use crate::target::Address;
use crate::variants::Variant;

/// How many messages a streaming call answers with.
pub const STREAMED: usize = 16;

/// A word of the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Failure;

            fn from_str(word: &str) -> Result<Self, $crate::Failure> {
                let found = Self::ALL.iter().find(|it| it.name() == word);
                let words: Vec<_> = Self::ALL.iter().map(|it| it.name()).collect();
                let problem = || format!("{word} is none of {}", words.join(", "));
                Ok(*found.ok_or_else(problem)?)
            }
        }
    };
}

pub(crate) use words;

words!(
    ServerKind {
        /// Frames by hand: the client is what limits.
        Sink = "sink",
        /// A real tonic server.
        Tonic = "tonic",
    }
);

words!(Net {
    Tcp = "tcp",
    Unix = "unix",
});

words!(Kind {
    Unary = "unary",
    Streaming = "streaming",
});

impl Kind {
    pub fn replies(self) -> usize {
        match self {
            Self::Unary => 1,
            Self::Streaming => STREAMED,
        }
    }
}

/// All that can be said on the command line; each command uses its part.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--only`, or `--variant`.
    pub variants: Vec<Variant>,
    pub servers: Vec<ServerKind>,
    pub nets: Vec<Net>,
    pub kinds: Vec<Kind>,
    pub payloads: Vec<usize>,
    pub endpoints: Vec<usize>,
    pub callers: Vec<usize>,
    pub rounds: Option<usize>,
    pub seconds: Option<f64>,
    pub workers: usize,
    pub calls: u64,
    /// Servers that run already.
    pub at: Vec<Address>,
    pub cpu: Option<usize>,
    pub quick: bool,
    /// Whether calls go over TLS.
    pub tls: bool,
    /// The directory that has what TLS needs, for processes that are given it.
    pub credentials: Option<PathBuf>,
    /// Of `handshake`.
    pub sessions: Vec<Sessions>,
    /// Of `failures`.
    pub scenarios: Vec<Scenario>,
    pub clients: Vec<FailureClient>,
    /// Of `ejection`.
    pub endings: Vec<Ending>,
    /// Of `many`.
    pub many_clients: Vec<ManyClient>,
    /// Of `tails`.
    pub tail_cases: Vec<TailCase>,
    pub tail_clients: Vec<TailClient>,
    pub serve: ServeOptions,
}

/// Of `serve`.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub server: ServerKind,
    pub listen: Vec<Address>,
    pub replies: usize,
    pub delay: Duration,
    pub concurrency: Option<usize>,
    pub cpu: Option<usize>,
    /// TLS, with what is in this directory.
    pub credentials: Option<PathBuf>,
    /// Whether sessions can be resumed.
    pub tickets: bool,
    /// Whether each connection ends after its first call.
    pub one_call: bool,
    /// Whether connections end with RST.
    pub reset: bool,
    /// Whether to end with the process that started it.
    pub child: bool,
}

impl Options {
    fn new() -> Self {
        Self {
            variants: Vec::new(),
            servers: Vec::new(),
            nets: Vec::new(),
            kinds: Vec::new(),
            payloads: Vec::new(),
            endpoints: Vec::new(),
            callers: Vec::new(),
            rounds: None,
            seconds: None,
            workers: 1,
            calls: 5_000,
            at: Vec::new(),
            cpu: None,
            quick: false,
            tls: false,
            credentials: None,
            sessions: Vec::new(),
            scenarios: Vec::new(),
            clients: Vec::new(),
            endings: Vec::new(),
            many_clients: Vec::new(),
            tail_cases: Vec::new(),
            tail_clients: Vec::new(),
            serve: ServeOptions {
                server: ServerKind::Sink,
                listen: Vec::new(),
                replies: 1,
                delay: Duration::ZERO,
                concurrency: None,
                cpu: None,
                credentials: None,
                tickets: true,
                one_call: false,
                reset: false,
                child: false,
            },
        }
    }

    /// The command, and its options.
    pub fn parse() -> Result<(String, Self), Failure> {
        let mut options = Self::new();
        let mut command = None;
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(value) if command.is_none() => command = Some(value.string()?),
                Arg::Short('h') | Arg::Long("help") => command = Some("help".to_owned()),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    options.take(&name, &mut parser)?;
                }
                other => return Err(other.unexpected().into()),
            }
        }
        Ok((command.unwrap_or_else(|| "help".to_owned()), options))
    }

    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<(), Failure> {
        match name {
            "only" | "variant" => self.variants = list(parser)?,
            "server" => {
                self.servers = list(parser)?;
                self.serve.server = self.servers[0];
            }
            "net" => self.nets = list(parser)?,
            "kind" => self.kinds = list(parser)?,
            "payload" => self.payloads = list(parser)?,
            "endpoints" => self.endpoints = list(parser)?,
            "callers" => self.callers = list(parser)?,
            "rounds" => self.rounds = Some(parser.value()?.parse()?),
            "seconds" => self.seconds = Some(parser.value()?.parse()?),
            "workers" => self.workers = parser.value()?.parse()?,
            "calls" => self.calls = parser.value()?.parse()?,
            "at" => self.at = list(parser)?,
            "scenario" => self.scenarios = list(parser)?,
            "client" => self.clients = list(parser)?,
            "ending" => self.endings = list(parser)?,
            "tails" => self.tail_clients = list(parser)?,
            "case" => self.tail_cases = list(parser)?,
            "many" => self.many_clients = list(parser)?,
            "sessions" => self.sessions = list(parser)?,
            "tls" => self.tls = true,
            "credentials" => {
                self.credentials = Some(parser.value()?.into());
                self.serve.credentials.clone_from(&self.credentials);
            }
            "no-tickets" => self.serve.tickets = false,
            "one-call" => self.serve.one_call = true,
            "reset" => self.serve.reset = true,
            "quick" => self.quick = true,
            "listen" => self.serve.listen = list(parser)?,
            "replies" => self.serve.replies = parser.value()?.parse()?,
            "delay-ms" => self.serve.delay = Duration::from_millis(parser.value()?.parse()?),
            "concurrency" => self.serve.concurrency = Some(parser.value()?.parse()?),
            "cpu" => {
                self.cpu = Some(parser.value()?.parse()?);
                self.serve.cpu = self.cpu;
            }
            "child" => self.serve.child = true,
            other => return Err(format!("there is no option --{other}").into()),
        }
        Ok(())
    }
}

/// Values with commas between; at least one.
fn list<T>(parser: &mut Parser) -> Result<Vec<T>, Failure>
where
    T: FromStr,
    T::Err: Into<Failure>,
{
    let text = parser.value()?.string()?;
    text.split(',')
        .map(|item| item.parse().map_err(Into::into))
        .collect()
}

/// What was asked for, or all there is.
pub fn or<T: Clone>(asked: &[T], otherwise: &[T]) -> Vec<T> {
    if asked.is_empty() {
        otherwise.to_vec()
    } else {
        asked.to_vec()
    }
}
