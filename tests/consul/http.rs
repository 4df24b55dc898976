//! One HTTP request on a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::net::Stream;

/// Where an agent answers.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Sends a request and reads the answer to its end. There is no limit on the time.
///
/// The request's version is 1.0: then the answer has no chunks, and ends with the connection.
pub async fn exchange(
    place: &Place,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> io::Result<Response> {
    let mut stream = match place {
        Place::Tcp(addr) => Stream::Tcp(TcpStream::connect(addr).await?),
        Place::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
    };
    let length = body.len();
    let token = token.map_or(String::new(), |it| format!("X-Consul-Token: {it}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n{token}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Response::read(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl Response {
    /// A header's value, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(it, _)| it.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// X-Consul-Index, which a blocking query goes on from.
    pub fn index(&self) -> u64 {
        let index = self.header("X-Consul-Index").expect("the answer has one");
        index.parse().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// `None` if it is cut short.
    fn read(answer: &[u8]) -> Option<Self> {
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
        let body = answer[end + 4..].to_vec();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        let response = Self {
            status,
            headers: headers.collect(),
            body,
        };
        let length = response.header("Content-Length").map(str::parse);
        let whole = length.is_none_or(|it| it == Ok(response.body.len()));
        whole.then_some(response)
    }
}
