//! TCP connections.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use super::race::race;
use super::resolve::resolve;
use super::{DialError, TcpOptions};
use crate::address::{Host, TcpAddress};

/// Connects to the fastest of the socket addresses that `address` stands for.
///
/// # Cancel safety
///
/// Dropping the future closes the sockets of all attempts.
pub(super) async fn connect(
    address: &TcpAddress,
    options: &TcpOptions,
) -> Result<TcpStream, DialError> {
    let mut peers = resolve(address).await?;
    peers.retain(|peer| options.can_reach(peer));
    if peers.is_empty() {
        return Err(DialError::connect(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the server has no IP address of the local address's family",
        )));
    }
    race(peers, |peer| open(peer, options))
        .await
        .map_err(|all| {
            DialError::connect(match address.host() {
                // Whoever dialled an address knows it.
                Host::Ip(_) => all.into_last(),
                Host::Name(_) => all.into(),
            })
        })
}

async fn open(peer: SocketAddr, options: &TcpOptions) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    options.apply(&socket)?;
    refuse_self(socket.connect(peer).await?)
}

/// A dial to a free port of this machine may happen to get that very port as its own. TCP then connects the socket to
/// itself (simultaneous open), and the server can no longer listen there.
fn refuse_self(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nothing listens there; the socket was connected to itself",
        ));
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::net::TcpListener;

    use super::*;
    use crate::address::Address;
    use crate::error::Stage;

    async fn dial(address: &str, options: TcpOptions) -> Result<TcpStream, DialError> {
        connect(Address::tcp(address).unwrap().as_tcp().unwrap(), &options).await
    }

    #[tokio::test]
    async fn the_options_are_applied() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let source = IpAddr::from(Ipv4Addr::LOCALHOST);
        for nodelay in [true, false] {
            let options = TcpOptions::new().nodelay(nodelay).local_address(source);
            let stream = dial(&format!("localhost:{port}"), options).await.unwrap();
            assert_eq!(stream.nodelay().unwrap(), nodelay);
            assert_eq!(stream.local_addr().unwrap().ip(), source);
        }
    }

    #[tokio::test]
    async fn the_other_family_is_not_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = TcpOptions::new().local_address(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        let error = dial(&listener.local_addr().unwrap().to_string(), options)
            .await
            .unwrap_err();
        assert_eq!(error.stage(), Stage::Connect);
        assert_eq!(error.io_error().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn a_foreign_local_address_is_named() {
        // TEST-NET-1 (RFC 5737): no machine has it.
        let options = TcpOptions::new().local_address(IpAddr::from([192, 0, 2, 1]));
        let error = dial("127.0.0.1:1", options).await.unwrap_err();
        assert_eq!(error.io_error().kind(), io::ErrorKind::AddrNotAvailable);
        assert!(
            error
                .io_error()
                .to_string()
                .contains("the local address 192.0.2.1 cannot be used"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_socket_connected_to_itself_is_refused() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let error = refuse_self(socket.connect(own).await.unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
