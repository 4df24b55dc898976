//! Which cells are measured, and by whom.

use std::fmt;
use std::time::Duration;

use crate::options::{Kind, Net, Options, STREAMED, ServerKind, or};
use crate::variants::Variant;

/// Cells that share a table: everything but the number of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub server: ServerKind,
    pub net: Net,
    pub kind: Kind,
    pub payload: usize,
    pub endpoints: usize,
    pub tls: bool,
}

pub struct Plan {
    pub settings: Vec<Setting>,
    pub callers: Vec<usize>,
    pub rounds: usize,
    pub window: Duration,
    variants: Vec<Variant>,
}

impl Plan {
    pub fn new(options: &Options) -> Self {
        let quick = options.quick;
        let servers = or(&options.servers, ServerKind::ALL);
        let all = match options.tls {
            // tonic has no TLS over Unix sockets.
            true => &[Net::Tcp],
            false => Net::ALL,
        };
        let nets = or(&options.nets, all);
        let kinds = or(&options.kinds, Kind::ALL);
        let payloads = or(&options.payloads, if quick { &[100] } else { &[100, 8192] });
        let endpoints = or(&options.endpoints, &[1, 3]);
        let mut settings = Vec::new();
        for &server in &servers {
            for &net in &nets {
                for &kind in &kinds {
                    for &payload in &payloads {
                        settings.extend(endpoints.iter().map(|&endpoints| Setting {
                            server,
                            net,
                            kind,
                            payload,
                            endpoints,
                            tls: options.tls,
                        }));
                    }
                }
            }
        }
        // A real server limits the calls itself, so that most of the matrix would say little more there. What is
        // asked for by name is measured.
        if options.servers.is_empty() {
            settings.retain(|it| {
                it.server == ServerKind::Sink || (it.net == Net::Tcp && it.kind == Kind::Unary)
            });
        }
        Self {
            settings,
            callers: or(
                &options.callers,
                if quick { &[16] } else { &[1, 16, 128, 1000] },
            ),
            rounds: options.rounds.unwrap_or(if quick { 1 } else { 5 }),
            window: Duration::from_secs_f64(options.seconds.unwrap_or(if quick {
                0.15
            } else {
                0.6
            })),
            variants: or(&options.variants, &Variant::ALL),
        }
    }

    /// Those that can make the calls.
    pub fn variants(&self, setting: &Setting) -> Vec<Variant> {
        let unix = setting.net == Net::Unix;
        let mut variants = self.variants.clone();
        variants.retain(|variant| variant.can_call(setting.endpoints, unix, setting.tls));
        variants
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            endpoints, payload, ..
        } = self;
        match self.kind {
            Kind::Unary => write!(f, "Unary calls, {payload} B each way")?,
            Kind::Streaming => {
                write!(f, "Server streams of {STREAMED} messages, {payload} B each")?
            }
        }
        let tls = if self.tls { " with TLS" } else { "" };
        let plural = if *endpoints == 1 { "" } else { "s" };
        let net = match self.net {
            Net::Tcp => "TCP",
            Net::Unix => "Unix sockets",
        };
        write!(
            f,
            ", {endpoints} endpoint{plural}, {net}{tls}, {} server",
            self.server
        )
    }
}
