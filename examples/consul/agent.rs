//! What servers and operators ask of an agent. Trunkline only reads.

use std::env;
use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An agent's address.
pub(crate) struct Agent(String);

type Done = Result<(), Box<dyn Error>>;

impl Agent {
    pub(crate) fn from_environment() -> Self {
        let address = env::var("CONSUL_HTTP_ADDR").unwrap_or_else(|_| "127.0.0.1:8500".to_owned());
        Self(address.trim_start_matches("http://").to_owned())
    }

    /// Registers an instance on this machine, with a check that its server would have to renew.
    pub(crate) async fn register(&self, service: &str, id: &str, port: u16, weight: u32) -> Done {
        let body = format!(
            r#"{{"Name": "{service}", "ID": "{id}", "Address": "127.0.0.1", "Port": {port},
                "Weights": {{"Passing": {weight}, "Warning": 1}},
                "Check": {{"CheckID": "{id}", "TTL": "10m", "Status": "passing"}}}}"#
        );
        self.put("/v1/agent/service/register", &body).await
    }

    pub(crate) async fn deregister(&self, id: &str) -> Done {
        self.put(&format!("/v1/agent/service/deregister/{id}"), "")
            .await
    }

    pub(crate) async fn maintenance(&self, id: &str, on: bool) -> Done {
        self.put(
            &format!("/v1/agent/service/maintenance/{id}?enable={on}"),
            "",
        )
        .await
    }

    /// `pass`, `warn` or `fail`.
    pub(crate) async fn check(&self, id: &str, result: &str) -> Done {
        self.put(&format!("/v1/agent/check/{result}/{id}"), "")
            .await
    }

    async fn put(&self, path: &str, body: &str) -> Done {
        let connected = TcpStream::connect(&self.0).await;
        let mut stream = connected.map_err(|error| {
            format!(
                "no Consul agent at {}: {error}; start one with scripts/consul --dev",
                self.0
            )
        })?;
        let length = body.len();
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}",
            self.0
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.starts_with("HTTP/1.1 200 ") {
            return Ok(());
        }
        Err(format!("{path}: {answer}").into())
    }
}
