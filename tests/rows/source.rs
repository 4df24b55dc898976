//! Endpoints that the test changes.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use trunkline::{Discover, Endpoint, Resolution, Resolutions};

/// Sends the answers of a [`TestSource`].
#[derive(Clone, Debug)]
pub struct Answers(mpsc::Sender<Resolution>);

/// A source whose answers the test gives.
#[derive(Debug)]
pub struct TestSource(mpsc::Receiver<Resolution>);

impl TestSource {
    pub fn new() -> (Answers, Self) {
        let (send, receive) = mpsc::channel(16);
        (Answers(send), Self(receive))
    }
}

impl Answers {
    /// The full set from now on. Waits while the channel is behind.
    pub async fn send(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let resolution = Resolution::new(endpoints);
        self.0.send(resolution).await.expect("the channel listens");
    }
}

impl Discover for TestSource {
    fn name(&self) -> String {
        "test".to_owned()
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        Box::pin(ReceiverStream::new(self.0).map(Ok))
    }
}
