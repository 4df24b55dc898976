//! A channel with all its stops.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status};
use trunkline::{
    Backoff, Balance, CallOptions, Candidate, Channel, Connector, Discover, Endpoint, Error, Pick,
    PickRequest, Picker, Policy, PoolOptions, Resolution, Resolutions, Retry,
};

use super::dial::StopDial;
use super::peer::Peer;
use super::stop::{Act, Stop};
use crate::support::body::post;
use crate::support::response;
use crate::support::wait::{wait_until, within};

/// How long anything may take that has no limit of its own.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A limit that passes.
pub const SHORT: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct World {
    pub peer: Peer,
    pub dial: StopDial,
    pub discovery: Stop,
    pub pick: Stop,
    pub body: Stop,
    /// Reached by calls that have their response's headers.
    pub headers: Stop,
}

/// Changes the set of endpoints. While it lives the source goes on.
#[derive(Debug)]
pub struct Answers(mpsc::Sender<Resolution>, String);

impl World {
    pub async fn start() -> Self {
        Self {
            peer: Peer::start().await,
            dial: StopDial::default(),
            discovery: Stop::default(),
            pick: Stop::default(),
            body: Stop::default(),
            headers: Stop::default(),
        }
    }

    /// A connector to the peer, over all stops. One connection of one stream; nothing is repeated.
    /// `wait` limits each dial and the wait for a stream, `deadline` calls that say nothing else.
    pub fn connector(&self, wait: Duration, deadline: Duration) -> (Connector, Answers) {
        let (answers, queue) = mpsc::channel(16);
        let answers = Answers(answers, self.peer.address.clone());
        answers.say(1);
        let source = Source {
            stop: self.discovery.clone(),
            queue,
        };
        let pool = PoolOptions::new()
            .max_connections(1)
            .max_waiting(1)
            .connect_timeout(wait.min(deadline))
            .unix_connect_timeout(wait.min(deadline))
            .wait_timeout(wait)
            .dial_backoff(Backoff::dialling().initial(SHORT / 5).max(SHORT / 2));
        let connector = Connector::discover(source)
            .dialer(self.dial.clone())
            .balance(Balance::custom(StopPolicy(self.pick.clone())))
            .pool(pool)
            .retry(Retry::none())
            .timeout(deadline);
        (connector, answers)
    }

    /// One call, to the end of its response.
    pub async fn call(&self, channel: &Channel, options: CallOptions) -> Result<(), Error> {
        let sent = response::message(b"a message of the echo service");
        let mut request = post(self.body_of(sent.clone()));
        request.extensions_mut().insert(options);
        let response = channel.send(request).await?;
        self.headers.reach();
        let body = response.into_body().collect().await?;
        let status = body.trailers().and_then(|all| all.get("grpc-status"));
        assert_eq!(status.unwrap(), "0");
        assert_eq!(body.to_bytes(), sent);
        Ok(())
    }

    /// A body of one frame, after its stop.
    fn body_of(&self, message: Bytes) -> Body {
        let stop = self.body.clone();
        let frames = tokio_stream::once(message).then(move |message| {
            let stop = stop.clone();
            async move {
                let passed = stop.pass().await;
                let broken = |_| Status::new(Code::DataLoss, "the body broke");
                passed.map(|()| Frame::data(message)).map_err(broken)
            }
        });
        Body::new(StreamBody::new(frames))
    }

    /// Waits until nothing of the calls so far is left anywhere, and the next one succeeds.
    pub async fn is_as_before(&self, channel: &Channel) {
        let ready = CallOptions::new().wait_for_ready(true).timeout(LIMIT);
        let next = within(LIMIT, "the next call", self.call(channel, ready)).await;
        next.unwrap();
        let at_rest = || {
            let status = channel.status();
            let endpoint = &status.endpoints[0];
            endpoint.in_flight == 0
                && endpoint.waiting == 0
                && (endpoint.connections, endpoint.free_streams) == (1, 1)
                && endpoint.draining_connections == 0
                && self.peer.counts.open.load(SeqCst) == 0
                && self.peer.counts.connections.load(SeqCst) == 1
        };
        wait_until(LIMIT, at_rest).await;
    }
}

impl Answers {
    /// The peer, with this weight.
    pub fn say(&self, weight: u32) {
        let endpoint = Endpoint::tcp(&self.1).weight(weight);
        self.0.try_send(Resolution::new([endpoint])).unwrap();
    }
}

/// A source whose answers pass a stop.
#[derive(Debug)]
struct Source {
    stop: Stop,
    queue: mpsc::Receiver<Resolution>,
}

impl Discover for Source {
    fn name(&self) -> String {
        "test".to_owned()
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        let Self { stop, queue } = *self;
        Box::pin(ReceiverStream::new(queue).then(move |answer| {
            let stop = stop.clone();
            async move {
                let passed = stop.pass().await;
                passed.map(|()| answer).map_err(|_| "out of order".into())
            }
        }))
    }
}

/// Picks the only endpoint, as its stop says.
#[derive(Clone, Debug)]
struct StopPolicy(Stop);

impl Policy for StopPolicy {
    fn name(&self) -> &str {
        "stop"
    }

    fn build(&self, _: &[Candidate]) -> Box<dyn Picker> {
        Box::new(self.clone())
    }
}

impl Picker for StopPolicy {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        self.0.reach();
        match self.0.act() {
            Act::Pass => Pick::Endpoint(0),
            Act::Fail => Pick::Fail("nobody".into()),
            Act::Hold => Pick::Wait,
        }
    }
}
