//! A source of endpoints that says what the test tells it to.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trunkline::{Discover, Endpoint, Outage, Resolution, Resolutions};

/// What a source says.
type Answer = Result<Resolution, Box<dyn std::error::Error + Send + Sync>>;

/// The source. Its name is `told`.
#[derive(Debug)]
pub struct Told(mpsc::Receiver<Answer>, Outage);

/// The test's end. Dropping it ends the source's stream.
#[derive(Debug)]
pub struct Teller(mpsc::Sender<Answer>);

impl Told {
    pub fn new() -> (Teller, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (Teller(sender), Self(receiver, Outage::keep().guard(1.0)))
    }

    /// A source that has said this, and says nothing more until the teller does.
    pub fn saying(answer: Result<Vec<Endpoint>, &'static str>) -> (Teller, Self) {
        let (teller, told) = Self::new();
        match answer {
            Ok(endpoints) => teller.say(endpoints),
            Err(error) => teller.fail(error),
        }
        (teller, told)
    }

    /// The same, believed so far.
    pub fn under(mut self, outage: Outage) -> Self {
        self.1 = outage;
        self
    }
}

impl Teller {
    /// A full answer.
    pub fn say(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.send(Ok(Resolution::new(endpoints)));
    }

    /// A failed answer.
    pub fn fail(&self, error: &'static str) {
        self.send(Err(error.into()));
    }

    /// Whether the channel still listens.
    pub fn is_heard(&self) -> bool {
        !self.0.is_closed()
    }

    fn send(&self, answer: Answer) {
        self.0.try_send(answer).expect("the channel listens");
    }
}

impl Discover for Told {
    fn name(&self) -> String {
        "told".to_owned()
    }

    fn outage(&self) -> Outage {
        self.1
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        Box::pin(ReceiverStream::new(self.0))
    }
}
