//! What a server saw.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use http::Request;
use rustls::{HandshakeKind, ServerConnection};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Counts of one server.
#[derive(Debug, Default)]
pub struct Seen {
    accepted: AtomicU64,
    records: AtomicU64,
    foreign: AtomicU64,
    handshakes: Mutex<Vec<Handshake>>,
    failed: Mutex<Vec<String>>,
    targets: Mutex<Vec<(String, String)>>,
}

/// A handshake that succeeded, as far as the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    pub resumed: bool,
    /// `TLSv1_3`.
    pub version: String,
    /// `TLS13_AES_256_GCM_SHA384`.
    pub suite: String,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// The serial number of its certificate.
    pub client: Option<String>,
}

impl Seen {
    /// Connections that were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    /// Records that came.
    pub fn records(&self) -> u64 {
        self.records.load(SeqCst)
    }

    /// Bytes that came and are no part of a TLS record.
    pub fn plaintext(&self) -> u64 {
        self.foreign.load(SeqCst)
    }

    /// The handshakes that succeeded, in their order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap().clone()
    }

    /// Those of them that resumed a session.
    pub fn resumed(&self) -> usize {
        self.handshakes().iter().filter(|it| it.resumed).count()
    }

    /// Why others failed.
    pub fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    /// `:scheme` and `:authority` of the requests.
    pub fn targets(&self) -> Vec<(String, String)> {
        self.targets.lock().unwrap().clone()
    }

    pub(super) fn connection(&self) {
        self.accepted.fetch_add(1, SeqCst);
    }

    pub(super) fn received(&self, records: u64, foreign: u64) {
        self.records.fetch_add(records, SeqCst);
        self.foreign.fetch_add(foreign, SeqCst);
    }

    pub(super) fn handshake(&self, connection: &ServerConnection) {
        let client = connection.peer_certificates().and_then(<[_]>::first);
        let client = client.map(|der| {
            let (_, read) = X509Certificate::from_der(der).unwrap();
            read.raw_serial_as_string()
        });
        let suite = connection.negotiated_cipher_suite().unwrap();
        self.handshakes.lock().unwrap().push(Handshake {
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            version: format!("{:?}", connection.protocol_version().unwrap()),
            suite: format!("{:?}", suite.suite()),
            server_name: connection.server_name().map(str::to_owned),
            client,
        });
    }

    pub(super) fn failure(&self, why: String) {
        self.failed.lock().unwrap().push(why);
    }

    pub(super) fn request<B>(&self, request: &Request<B>) {
        let uri = request.uri();
        let part = |it: Option<&str>| it.unwrap_or_default().to_owned();
        let target = (
            part(uri.scheme_str()),
            part(uri.authority().map(|it| it.as_str())),
        );
        self.targets.lock().unwrap().push(target);
    }
}
