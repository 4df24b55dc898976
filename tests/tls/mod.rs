//! Certificates of every kind, and servers that speak TLS. Nothing here uses the crate under test, but for
//! the options that name a client's files.
//!
//! | file | role |
//! |---|---|
//! | `authority` | who signs certificates, and what they say |
//! | `identity` | a certificate with its key: as PEM, in files, in several encodings |
//! | `files` | those of a client, in a directory |
//! | `server` | the echo service behind TLS, whose certificate can be replaced while it runs |
//! | `serve` | its accept loop and handshakes |
//! | `lease` | a file that does not open, as if its disk were gone |
//! | `log` | what the thread of a test logs |
//! | `mute` | in place of it: a server that stalls, or speaks something else |
//! | `only` | a server's rule: this client and no other (`examples/plugin/only.rs`) |
//! | `openssl` | the program of that name, where there is one |
//! | `seen` | what such a server saw: records, handshakes, certificates of clients |
//! | `tapped` | a stream that tells TLS records from anything else |
//!
//! ```ignore
//! let authority = Authority::new("root");
//! let server = TlsServer::builder("a", &authority.issue().dns("localhost").finish()).tcp();
//! let tls = Tls::new().ca_pem(authority.pem());
//! ```

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "as in `support`: each test compiles this anew and uses a part of it"
)]

pub mod authority;
pub mod files;
pub mod identity;
pub mod lease;
pub mod log;
pub mod mute;
// The example's plugin has the same rule.
#[path = "../../examples/plugin/only.rs"]
mod only;
pub mod openssl;
pub mod seen;
pub mod serve;
pub mod server;
pub mod tapped;
