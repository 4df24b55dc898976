//! A grpcio server in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use trunkline_proto::foreign::clinic_client::ClinicClient;
use trunkline_proto::foreign::journal_client::JournalClient;
use trunkline_proto::foreign::tally_client::TallyClient;
use trunkline_proto::foreign::{Call, CallsRequest, HandledReply, HandledRequest, SayRequest};

use crate::support::wait::wait_until;

/// How long Python may take to start on a busy machine.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to end; its calls have one second of it.
pub(super) const END_LIMIT: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills the process and waits for its end; should the test itself be killed, the server
/// ends because its input does.
#[derive(Debug)]
pub struct GrpcioServer {
    process: Child,
    input: Option<ChildStdin>,
    uri: String,
}

impl GrpcioServer {
    /// Starts one on a free loopback port, with options of gRPC's core: `("grpc.max_connection_age_ms", 2000)`.
    pub fn tcp(options: &[(&str, u64)]) -> Self {
        Self::start("127.0.0.1:0", numbers(options))
    }

    /// Starts one on a free loopback port that takes nothing but TLS, with these files: `("chain", …)`, `("key", …)`,
    /// and `("clients", …)` if clients must have a certificate of that root.
    pub fn tls(files: &[(&str, &Path)]) -> Self {
        let files = files.iter();
        let files = files.map(|(name, path)| format!("tls.{name}={}", path.display()));
        let mut server = Self::start("127.0.0.1:0", files);
        server.uri = server.uri.replacen("http:", "https:", 1);
        server
    }

    /// Starts one on a Unix socket.
    pub fn unix(path: &Path, options: &[(&str, u64)]) -> Self {
        Self::start(&format!("unix:{}", path.display()), numbers(options))
    }

    fn start(address: &str, options: impl Iterator<Item = String>) -> Self {
        let python = python();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/server.py");
        let mut process = Command::new(&python)
            // No compiled files beside the sources.
            .arg("-B")
            .arg(script)
            .arg(address)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; run scripts/foreign-python", python.display())
            });
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut server = Self {
            process,
            input,
            uri: String::new(),
        };
        // A thread reads, so that the wait has a limit. It ends with the line or with the process.
        let (send, line) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            let _ = output.read_line(&mut line);
            let _ = send.send(line);
        });
        let line = line.recv_timeout(START_LIMIT).expect("the server starts");
        let place = line.trim().strip_prefix("listening on ");
        let place = place.unwrap_or_else(|| panic!("the server said {line:?}"));
        server.uri = match place.strip_prefix("unix:") {
            Some(path) => format!("unix://{path}"),
            None => format!("http://{place}"),
        };
        server
    }

    /// `http://address`, `https://address` or `unix://path`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// What it counted of the echo calls, asked for with tonic's own client, which has no TLS here.
    pub async fn handled(&self) -> HandledReply {
        let mut client = TallyClient::new(connect(&self.uri));
        let reply = client.handled(HandledRequest {}).await;
        reply.unwrap().into_inner()
    }

    /// Sets what its health service says of that service: a number of `HealthCheckResponse.ServingStatus`.
    pub async fn say(&self, service: &str, status: u32) {
        let service = service.to_owned();
        let request = SayRequest { service, status };
        let mut client = ClinicClient::new(connect(&self.uri));
        client.say(request).await.unwrap();
    }

    /// Tells it to end, gracefully, and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        self.input = None;
        let mut status = None;
        let ended = || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        };
        wait_until(END_LIMIT, ended).await;
        status.unwrap()
    }
}

impl Drop for GrpcioServer {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The calls of `grpc.testing.TestService` that came to a server, asked for with tonic's own client.
pub async fn calls(uri: &str) -> Vec<Call> {
    let reply = JournalClient::new(connect(uri))
        .calls(CallsRequest {})
        .await;
    reply.unwrap().into_inner().calls
}

fn numbers(options: &[(&str, u64)]) -> impl Iterator<Item = String> {
    let options = options.iter();
    options.map(|(name, number)| format!("{name}={number}"))
}

fn connect(uri: &str) -> Channel {
    Endpoint::from_shared(uri.to_owned())
        .unwrap()
        .connect_lazy()
}

/// Where `scripts/foreign-python` puts it: beside Cargo's directory for the files of tests.
pub(super) fn python() -> PathBuf {
    let files = Path::new(env!("CARGO_TARGET_TMPDIR"));
    files.with_file_name("foreign-python").join("bin/python")
}
