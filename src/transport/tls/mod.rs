//! TLS on top of a dialled stream, with rustls.
//!
//! | file | role |
//! |---|---|
//! | `options` | [`Tls`]: what users set |
//! | `pem`, `files` | certificates, keys and revocation lists, from bytes or files |
//! | `material` | all that was read, checked |
//! | `provider` | the cryptography, and the versions and suites of it that are used |
//! | `verifier`, `names` | which certificates of servers are accepted |
//! | `context` | what an endpoint's dials share: the current configuration |
//! | `handshake` | one handshake |
//! | `stream` | what the handshake leads to: a stream whose errors are in words |
//! | `reload` | files that change |
//! | `certificate` | what a certificate says |
//! | `error` | what went wrong, in words |

mod certificate;
mod context;
mod error;
mod files;
mod handshake;
mod material;
mod names;
mod options;
mod pem;
mod provider;
mod reload;
mod stream;
mod verifier;

pub use certificate::Certificate;
pub(crate) use context::{TlsContext, TlsCounts};
pub(crate) use handshake::Protocol;
pub use options::{DangerousTls, Tls, TlsVersion};
