//! Calls with tokens that expire and are revoked: `cargo run --example token`.
//!
//! A server takes calls with the current token only. The client exchanges an API key for tokens that are good for a second,
//! and the provider revokes one early. No call fails, and few exchanges are made.
#![allow(clippy::disallowed_methods)] // The server's task ends with the process.

mod echo;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, error::Error, fs, process};

use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server};
use trunkline::{Connector, Credentials, Token};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

/// An identity provider, which in real life is another service.
#[derive(Default)]
struct Provider {
    token: Mutex<String>,
    exchanges: AtomicU64,
}

impl Provider {
    /// A new token, in place of the last one.
    fn exchange(&self, api_key: &str) -> Result<Token, Box<dyn Error + Send + Sync>> {
        if api_key != "an API key" {
            return Err("the API key is unknown".into());
        }
        let token = format!("token-{}", self.exchanges.fetch_add(1, SeqCst) + 1);
        *self.current() = token.clone();
        Ok(Token::new(token).expires_in(Duration::from_secs(1)))
    }

    fn revoke(&self) {
        self.current().clear();
    }

    fn current(&self) -> std::sync::MutexGuard<'_, String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = Arc::new(Provider::default());
    let path = env::temp_dir().join(format!("trunkline-token-{}.sock", process::id()));
    serve(&path, Arc::clone(&provider))?;

    let asked = Arc::clone(&provider);
    let credentials = Credentials::exchange(move || {
        let provider = Arc::clone(&asked);
        async move { provider.exchange("an API key") }
    });
    // A token may go over a Unix socket or TLS, and not over plaintext TCP.
    let channel = Connector::unix(&path)
        .credentials(credentials)
        .connect()
        .await?;
    let mut client = EchoClient::new(channel);
    let (began, mut calls, mut revoked) = (Instant::now(), 0, false);
    while began.elapsed() < Duration::from_secs(3) {
        if !revoked && began.elapsed() > Duration::from_millis(1500) {
            provider.revoke();
            revoked = true;
        }
        client.unary(EchoRequest::default()).await?;
        calls += 1;
        sleep(Duration::from_millis(2)).await;
    }
    let exchanges = provider.exchanges.load(SeqCst);
    println!("{calls} calls, 0 failed, {exchanges} exchanges");
    fs::remove_file(path)?;
    Ok(())
}

fn serve(path: &std::path::Path, provider: Arc<Provider>) -> Result<(), Box<dyn Error>> {
    let check = move |request: Request<()>| {
        let expected = format!("Bearer {}", provider.current());
        match request.metadata().get("authorization") {
            Some(token) if token == expected.as_str() => Ok(request),
            _ => Err(Status::unauthenticated("the token is not good")),
        }
    };
    let service = InterceptedService::new(echo::service("server"), check);
    let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    Ok(())
}
