//! Requests to an agent's HTTP API.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::http::{Place, Response, exchange};

/// How long an answer may take. An agent without a leader looks for one for 8 s before it gives up.
const LIMIT: Duration = Duration::from_secs(30);

/// A client of one agent, with a token or without. Each request has a connection of its own, and a limit of 30 s.
///
/// What fails panics, with the place of the caller, except in [`ask`](Self::ask).
#[derive(Clone, Debug)]
pub struct Api {
    place: Place,
    token: Option<String>,
}

impl Api {
    pub fn tcp(addr: SocketAddr) -> Self {
        Self {
            place: Place::Tcp(addr),
            token: None,
        }
    }

    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::Unix(path.into()),
            token: None,
        }
    }

    /// The same with this token.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The same without one.
    pub fn without_token(mut self) -> Self {
        self.token = None;
        self
    }

    /// Any status is an answer. Paths are sent as they are, so what is special in them must be encoded already.
    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Response> + use<> {
        self.answer("GET", path, String::new())
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> impl Future<Output = Response> + use<> {
        self.answer("PUT", path, body.to_string())
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> impl Future<Output = Response> + use<> {
        self.answer("DELETE", path, String::new())
    }

    /// Any request; the error is that of the connection, or says that the limit is over.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> io::Result<Response> {
        let token = self.token.as_deref();
        let answer = exchange(&self.place, method, path, token, body);
        timeout(LIMIT, answer).await?
    }

    /// What must succeed.
    #[track_caller]
    pub(super) fn done(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> impl Future<Output = Response> + use<> {
        let caller = Location::caller();
        let what = format!("{method} {path}");
        let body = body.map_or(String::new(), Value::to_string);
        let answer = self.answer(method, path, body);
        async move {
            let answer = answer.await;
            let (status, text) = (answer.status, answer.text());
            assert_eq!(status, 200, "at {caller}: {what}: {text}");
            answer
        }
    }

    /// Its future has all it needs, so it may be a task of its own.
    #[track_caller]
    fn answer(
        &self,
        method: &str,
        path: &str,
        body: String,
    ) -> impl Future<Output = Response> + use<> {
        let caller = Location::caller();
        let (api, method, path) = (self.clone(), method.to_owned(), path.to_owned());
        async move {
            api.ask(&method, &path, &body)
                .await
                .unwrap_or_else(|error| panic!("at {caller}: {method} {path}: {error}"))
        }
    }
}
