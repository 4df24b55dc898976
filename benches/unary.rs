//! A unary call through a generated client: Trunkline beside tonic's own `Channel`, in one interleaved run.
//!
//! `cargo bench --bench unary`. The server is a process of its own, so that the CPU time is the client's.
//! Read the ratios: absolute figures are the machine's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::transport::server::TcpIncoming;
use trunkline::Connector;
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::echo_server::{Echo, EchoServer};
use trunkline_proto::{EchoReply, EchoRequest};

const CALLERS: [usize; 3] = [1, 16, 128];
const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_millis(700);

fn main() {
    if std::env::args().any(|arg| arg == "serve") {
        return serve();
    }
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(compare(&server.address));
}

async fn compare(address: &str) {
    let ours = Connector::tcp(address).connect().await.unwrap();
    let ours = EchoClient::new(ours);
    let tonic = tonic::transport::Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let tonic = EchoClient::new(tonic);
    println!(
        "callers  trunkline k/s  us CPU   tonic k/s  us CPU   ratio k/s  ratio CPU   (medians of {ROUNDS})"
    );
    for callers in CALLERS {
        let mut rows: Vec<[f64; 6]> = Vec::new();
        for _ in 0..ROUNDS {
            let (a, b) = (
                measure(&ours, callers).await,
                measure(&tonic, callers).await,
            );
            rows.push([a.0, a.1, b.0, b.1, a.0 / b.0, a.1 / b.1]);
        }
        let median = |column: usize| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{callers:7}  {:13.1}  {:6.2}   {:9.1}  {:6.2}   {:9.2}  {:9.2}",
            median(0),
            median(1),
            median(2),
            median(3),
            median(4),
            median(5),
        );
    }
}

/// Thousands of calls per second, and microseconds of CPU per call.
async fn measure<C>(client: &C, callers: usize) -> (f64, f64)
where
    C: UnaryEcho + Clone + Send + 'static,
{
    let calls = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let mut client = client.clone();
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                loop {
                    client.echo().await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(WINDOW / 5).await;
    let (from, cpu, start) = (calls.load(Ordering::Relaxed), cpu_seconds(), Instant::now());
    tokio::time::sleep(WINDOW).await;
    let done = (calls.load(Ordering::Relaxed) - from) as f64;
    let (cpu, wall) = (cpu_seconds() - cpu, start.elapsed().as_secs_f64());
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
    (done / wall / 1e3, cpu / done * 1e6)
}

/// The one call, for both transports.
trait UnaryEcho {
    fn echo(&mut self) -> impl Future<Output = ()> + Send;
}

macro_rules! unary_echo {
    ($transport:ty) => {
        impl UnaryEcho for EchoClient<$transport> {
            async fn echo(&mut self) {
                let request = EchoRequest {
                    payload: vec![7; 100],
                    ..Default::default()
                };
                self.unary(request).await.unwrap();
            }
        }
    };
}

unary_echo!(trunkline::Channel);
unary_echo!(tonic::transport::Channel);

/// User and system time of this process, in ticks of 1/100 s.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's part: serves until it is killed.
#[tokio::main(flavor = "current_thread")]
async fn serve() {
    // Without nodelay the server's answers wait for the client's delayed ACKs.
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap())
        .unwrap()
        .with_nodelay(Some(true));
    println!("{}", incoming.local_addr().unwrap());
    tonic::transport::Server::builder()
        .add_service(EchoServer::new(Answers))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

struct Answers;

type Stream = tokio_stream::Empty<Result<EchoReply, tonic::Status>>;

#[tonic::async_trait]
impl Echo for Answers {
    type ServerStreamStream = Stream;
    type BidiStreamStream = Stream;

    async fn unary(
        &self,
        request: tonic::Request<EchoRequest>,
    ) -> Result<tonic::Response<EchoReply>, tonic::Status> {
        let EchoRequest { id, payload, .. } = request.into_inner();
        Ok(tonic::Response::new(EchoReply {
            id,
            payload,
            ..Default::default()
        }))
    }

    async fn server_stream(
        &self,
        _: tonic::Request<EchoRequest>,
    ) -> Result<tonic::Response<Stream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }

    async fn client_stream(
        &self,
        _: tonic::Request<tonic::Streaming<EchoRequest>>,
    ) -> Result<tonic::Response<EchoReply>, tonic::Status> {
        Ok(tonic::Response::new(EchoReply::default()))
    }

    async fn bidi_stream(
        &self,
        _: tonic::Request<tonic::Streaming<EchoRequest>>,
    ) -> Result<tonic::Response<Stream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }
}
