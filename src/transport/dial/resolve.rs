//! From a TCP address to socket addresses.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;

use super::DialError;
use super::race::interleave;
use crate::address::{Host, TcpAddress};

/// The socket addresses of `address`, in the order in which to try them. At least one.
///
/// A name is looked up by the system (`getaddrinfo`, in a thread of the runtime's blocking pool) at every call; nothing is
/// cached here.
///
/// # Cancel safety
///
/// Dropping the future stops waiting. The system's lookup cannot be stopped: it ends in its thread.
pub(super) async fn resolve(address: &TcpAddress) -> Result<Vec<SocketAddr>, DialError> {
    match address.host() {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(ip, address.port())]),
        Host::Name(name) => {
            let found = lookup_host((name, address.port()))
                .await
                .map_err(DialError::resolve)?;
            let found = interleave(found.collect());
            if found.is_empty() {
                return Err(DialError::resolve(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the name exists but has no IP addresses",
                )));
            }
            Ok(found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::error::Stage;

    async fn resolved(text: &str) -> Result<Vec<SocketAddr>, DialError> {
        resolve(Address::tcp(text).unwrap().as_tcp().unwrap()).await
    }

    #[tokio::test]
    async fn literals_need_no_lookup() {
        assert_eq!(
            resolved("1.2.3.4:80").await.unwrap(),
            ["1.2.3.4:80".parse().unwrap()]
        );
        assert_eq!(
            resolved("[::1]:80").await.unwrap(),
            ["[::1]:80".parse().unwrap()]
        );
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let found = resolved("localhost:80").await.unwrap();
        assert!(!found.is_empty());
        assert!(
            found
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 80),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn an_unknown_name_fails_to_resolve() {
        // RFC 6761 reserves the domain for names that never exist.
        let error = resolved("nowhere.invalid:80").await.unwrap_err();
        assert_eq!(error.stage(), Stage::Resolve);
        assert_eq!(error.to_string(), "the host name could not be resolved");
    }
}
