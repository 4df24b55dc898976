//! Whether an endpoint's connections are encrypted, and by which rules.

use std::sync::Arc;
#[cfg(feature = "__tls")]
use std::sync::atomic::Ordering;
#[cfg(feature = "__tls")]
use std::sync::{Mutex, Weak};

use http::uri::Scheme;

use crate::address::Address;
use crate::error::Error;
#[cfg(feature = "__tls")]
use crate::lock::lock;
use crate::task::Tasks;
use crate::transport::dial::BoxIo;
#[cfg(feature = "__tls")]
use crate::transport::tls::{Certificate, Protocol, Tls, TlsContext, TlsCounts};

/// How the streams to one endpoint are secured.
#[derive(Clone, Debug, Default)]
pub(crate) enum Security {
    #[default]
    Plaintext,
    #[cfg(feature = "__tls")]
    Tls(Arc<TlsContext>, rustls::pki_types::ServerName<'static>),
    /// It can't be: what is wrong. There is no plaintext in place of it.
    #[cfg(feature = "__tls")]
    Broken(Arc<str>),
}

/// A stream that HTTP/2 can be spoken on.
pub(crate) struct Secured {
    pub(crate) io: BoxIo,
    pub(crate) identity: PeerIdentity,
}

/// Whom it leads to, and since which configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerIdentity {
    #[cfg(feature = "__tls")]
    pub(crate) certificate: Option<Arc<Certificate>>,
    #[cfg(feature = "__tls")]
    generation: u64,
}

impl Security {
    /// That of connections to a Consul agent.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field. The files are read later.
    #[cfg(all(feature = "__tls", feature = "consul"))]
    pub(crate) fn of_agent(tls: &Tls, agent: &Address) -> Result<Self, Error> {
        let name = tls.name_at(agent)?;
        let context = TlsContext::new(tls, Protocol::Http1, &Arc::default());
        Ok(Self::Tls(context, name))
    }

    /// Reads and checks the options of connections to an agent. Nothing is kept or warned of: that is for whoever asks.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field.
    #[cfg(all(feature = "__tls", feature = "consul"))]
    pub(crate) fn check_agent(tls: &Tls, agent: &Address) -> Result<(), Error> {
        TlsContext::check_now(tls, Protocol::Http1)?;
        tls.name_at(agent).map(|_| ())
    }

    /// Takes over files that have changed, and warns of certificates that end soon, for connections whose settings nobody
    /// looks after between them. It has a limit of its own, after which what was read before stays in use.
    #[cfg(feature = "consul")]
    #[cfg_attr(
        not(feature = "__tls"),
        expect(clippy::unused_async, reason = "as its other form")
    )]
    pub(crate) async fn refresh(&self) {
        #[cfg(feature = "__tls")]
        if let Self::Tls(context, _) = self {
            context.refresh().await;
            context.warn_of_expiry();
        }
    }

    /// Secures a stream that was just opened. The caller limits the time.
    ///
    /// # Errors
    ///
    /// If the peer is not who it should be, or can't be talked to in that way.
    #[cfg_attr(
        not(feature = "__tls"),
        expect(clippy::unused_async, reason = "as its other form")
    )]
    pub(crate) async fn secure(&self, io: BoxIo) -> Result<Secured, Error> {
        match self {
            Self::Plaintext => Ok(Secured {
                io,
                identity: PeerIdentity::default(),
            }),
            #[cfg(feature = "__tls")]
            Self::Tls(context, name) => {
                let encrypted = context.encrypt(io, name.clone()).await?;
                Ok(Secured {
                    io: encrypted.io,
                    identity: PeerIdentity {
                        certificate: encrypted.peer,
                        generation: encrypted.generation,
                    },
                })
            }
            #[cfg(feature = "__tls")]
            Self::Broken(problem) => {
                let kind = crate::error::Kind::Connect;
                let error = Error::new(kind, tonic::Code::Unavailable, problem.to_string());
                Err(error
                    .in_stage(crate::error::Stage::Handshake)
                    .delivered(crate::error::Delivery::NotSent))
            }
        }
    }

    /// Adds what may be wrong when HTTP/2 does not begin.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self {
            Self::Plaintext => {
                let message = format!("{} (is it a plaintext HTTP/2 server?)", error.message());
                error.with_message(message)
            }
            // gRPC's own servers close without an alert when they do not like a client's certificate, which with TLS
            // 1.3 is after the handshake.
            #[cfg(feature = "__tls")]
            Self::Tls(context, _) if !error.message().contains("the server refuses") => {
                let hint = match context.identity() {
                    None => "does it want a client certificate? see Tls::identity_files",
                    Some(_) => "does it accept this side's certificate?",
                };
                let message = format!("{} ({hint})", error.message());
                error.with_message(message)
            }
            #[cfg(feature = "__tls")]
            _ => error,
        }
    }

    /// The `:scheme` of requests.
    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Plaintext => Scheme::HTTP,
            #[cfg(feature = "__tls")]
            _ => Scheme::HTTPS,
        }
    }

    /// Whether certificates have changed since that connection was made.
    pub(crate) fn is_newer_than(&self, identity: &PeerIdentity) -> bool {
        #[cfg(feature = "__tls")]
        if let Self::Tls(context, _) = self {
            return context.generation() > identity.generation;
        }
        let _ = identity;
        false
    }

    /// Warns of the peer's certificate if it ends soon, once for each. Others' code, which takes down what is logged, runs
    /// then: no lock may be held.
    pub(crate) fn warn_of_peer(&self, peer: &PeerIdentity) {
        #[cfg(feature = "__tls")]
        if let (Self::Tls(context, _), Some(certificate)) = (self, &peer.certificate) {
            context.warn_of_peer(certificate);
        }
        let _ = peer;
    }

    /// This side's own certificate.
    #[cfg(feature = "__tls")]
    pub(crate) fn identity(&self) -> Option<Certificate> {
        match self {
            Self::Tls(context, _) => context.identity(),
            _ => None,
        }
    }

    /// Why certificates that have changed are not in use.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        #[cfg(feature = "__tls")]
        if let Self::Tls(context, _) = self {
            return context.trouble();
        }
        None
    }
}

/// What an endpoint asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// What the channel has.
    #[default]
    Any,
    /// TLS, with the channel's options if it has some (`https://`).
    #[cfg(feature = "__tls")]
    Encrypted,
    /// TLS with options of its own.
    #[cfg(feature = "__tls")]
    Own(Tls),
}

/// The channel's TLS options, and what was made of all options so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {
    #[cfg(feature = "__tls")]
    default: Option<Tls>,
    #[cfg(feature = "__tls")]
    contexts: Arc<Mutex<Contexts>>,
    #[cfg(feature = "__tls")]
    counts: Arc<TlsCounts>,
}

/// One for equal options.
#[cfg(feature = "__tls")]
#[derive(Debug, Default)]
struct Contexts {
    /// As long as an endpoint uses it.
    used: Vec<Weak<TlsContext>>,
    /// Those of options that the connector was given: what was read and checked when the channel was made is what its
    /// endpoints use, whenever they come.
    kept: Vec<Arc<TlsContext>>,
}

impl TlsSettings {
    #[cfg(feature = "__tls")]
    pub(crate) fn new(default: Option<Tls>) -> Self {
        Self {
            default,
            contexts: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Times that changed files could not be used, and certificates that were warned of: of this side, and of servers.
    pub(crate) fn counts(&self) -> [u64; 3] {
        #[cfg(feature = "__tls")]
        return [
            &self.counts.failures,
            &self.counts.expiring,
            &self.counts.peers_expiring,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        #[cfg(not(feature = "__tls"))]
        [0; 3]
    }

    /// How the streams to this endpoint are secured.
    pub(crate) fn security(&self, address: &Address, wanted: &Wanted, tasks: &Tasks) -> Security {
        #[cfg(feature = "__tls")]
        if let Some(tls) = self.options(wanted) {
            // Files that can't be used now may be so later; a name that is missing will not come.
            let found = self.known(&tls);
            let context = found.unwrap_or_else(|| {
                self.add(TlsContext::new(&tls, Protocol::Http2, &self.counts), tasks)
            });
            return match tls.name_at(address) {
                Ok(name) => Security::Tls(context, name),
                Err(error) => Security::Broken(error.to_string().into()),
            };
        }
        let _ = (address, wanted, tasks);
        Security::Plaintext
    }

    /// Reads and checks what the channel was given, and keeps it: what was checked is what its endpoints use, whenever
    /// they come.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field.
    #[cfg(feature = "__tls")]
    pub(crate) fn load(&self, tasks: &Tasks) -> Result<(), Error> {
        match &self.default {
            Some(tls) => self.keep(tls, tasks).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The same for what an endpoint asks for.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field.
    #[cfg(feature = "__tls")]
    pub(crate) fn validate(
        &self,
        address: &Address,
        wanted: &Wanted,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        match self.options(wanted) {
            Some(tls) => {
                self.keep(&tls, tasks)?;
                tls.name_at(address).map(|_| ())
            }
            None => Ok(()),
        }
    }

    #[cfg(feature = "__tls")]
    fn options(&self, wanted: &Wanted) -> Option<Tls> {
        match wanted {
            Wanted::Any => self.default.clone(),
            Wanted::Encrypted => Some(self.default.clone().unwrap_or_default()),
            Wanted::Own(tls) => Some(tls.clone()),
        }
    }

    #[cfg(feature = "__tls")]
    fn keep(&self, tls: &Tls, tasks: &Tasks) -> Result<Arc<TlsContext>, Error> {
        if let Some(known) = self.known(tls) {
            return Ok(known);
        }
        let context = self.add(
            TlsContext::loaded_now(tls, Protocol::Http2, &self.counts)?,
            tasks,
        );
        lock(&self.contexts).kept.push(Arc::clone(&context));
        Ok(context)
    }

    #[cfg(feature = "__tls")]
    fn known(&self, tls: &Tls) -> Option<Arc<TlsContext>> {
        let mut contexts = lock(&self.contexts);
        contexts.used.retain(|it| it.strong_count() > 0);
        let mut used = contexts.used.iter().filter_map(Weak::upgrade);
        used.find(|it| it.is_of(tls))
    }

    #[cfg(feature = "__tls")]
    fn add(&self, context: Arc<TlsContext>, tasks: &Tasks) -> Arc<TlsContext> {
        tasks.spawn_attendant(TlsContext::follow_files(Arc::downgrade(&context)));
        lock(&self.contexts).used.push(Arc::downgrade(&context));
        context
    }
}
