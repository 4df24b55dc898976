//! What a client is to call.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::Failure;
use crate::tls::ClientTls;

/// The method of both servers. The sink does not look at it.
pub const PATH: &str = "/peers.Echo/Call";

/// Where a server listens: `127.0.0.1:50051` or `unix:/run/peer.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub fn tcp(&self) -> Result<SocketAddr, Failure> {
        match self {
            Self::Tcp(address) => Ok(*address),
            Self::Unix(_) => Err("this client has no Unix sockets".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => Ok(Self::Tcp(text.parse()?)),
        }
    }
}

/// The calls to make, the same for every client. Clones share what they hold.
#[derive(Clone, Debug)]
pub struct Target {
    pub addresses: Arc<[Address]>,
    /// The request's message, and each of the reply's.
    pub message: Bytes,
    /// How many messages the server answers with. 1 is a unary call.
    pub replies: usize,
    /// `None` is plaintext.
    pub tls: Option<Arc<ClientTls>>,
    /// The deadline of each call, told to the client in the way of tonic's requests.
    pub timeout: Option<Duration>,
}

impl Target {
    pub fn new(addresses: Vec<Address>, payload: usize, replies: usize) -> Self {
        Self {
            addresses: addresses.into(),
            message: vec![7; payload].into(),
            replies,
            tls: None,
            timeout: None,
        }
    }

    /// Over TLS, if there is any.
    pub fn with_tls(self, tls: Option<Arc<ClientTls>>) -> Self {
        Self { tls, ..self }
    }

    pub fn scheme(&self) -> &'static str {
        match self.tls {
            None => "http",
            Some(_) => "https",
        }
    }

    /// The message with gRPC's prefix, for clients that take bytes.
    pub fn framed(&self) -> Bytes {
        let mut framed = BytesMut::with_capacity(5 + self.message.len());
        framed.put_u8(0);
        framed.put_u32(self.message.len() as u32);
        framed.put_slice(&self.message);
        framed.freeze()
    }

    /// The request, for clients that take HTTP. `authority` is for those that send what they are given.
    pub fn request(&self, authority: &str) -> http::request::Parts {
        let uri = http::Uri::builder()
            .scheme(self.scheme())
            .authority(authority)
            .path_and_query(PATH)
            .build();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = http::Method::POST;
        parts.uri = uri.unwrap_or_default();
        let field = http::HeaderValue::from_static;
        parts.headers.insert("te", field("trailers"));
        parts
            .headers
            .insert("content-type", field("application/grpc"));
        parts
    }

    /// Fails a call whose answer is not the echo of its request.
    pub fn check(&self, bytes: usize, prefix: usize) -> Result<(), Failure> {
        let expected = (prefix + self.message.len()) * self.replies;
        if bytes == expected {
            Ok(())
        } else {
            Err(format!("{bytes} bytes came back instead of {expected}").into())
        }
    }
}

/// Fails a call that did not end with status 0.
pub fn check_trailers(trailers: Option<&http::HeaderMap>) -> Result<(), Failure> {
    match trailers.and_then(|it| it.get("grpc-status")) {
        Some(status) if status == "0" => Ok(()),
        other => Err(format!("grpc-status is {other:?}").into()),
    }
}
