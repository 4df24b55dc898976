//! How an echo server behaves beyond what each request asks of it. Can be changed while it serves.

use std::sync::Mutex;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Settings of one server; they outlive its death and restart.
#[derive(Debug, Default)]
pub struct Behaviour(Mutex<Settings>);

#[derive(Debug, Default)]
struct Settings {
    delay: Duration,
    failing: Option<(f64, Code)>,
    pushback: Option<String>,
    /// Sum of the shares of the calls so far; a call fails each time it passes a whole number.
    due: f64,
}

impl Behaviour {
    /// Every call waits this long, on top of what its request asks for.
    pub fn set_delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    /// This share of the calls (0 to 1), evenly spread, fails with `code` once its delay is over.
    pub fn fail(&self, share: f64, code: Code) {
        let mut settings = self.0.lock().unwrap();
        settings.failing = Some((share, code));
        settings.due = 0.0;
    }

    /// Failures carry this value as `grpc-retry-pushback-ms`.
    pub fn set_pushback(&self, value: Option<&str>) {
        self.0.lock().unwrap().pushback = value.map(str::to_owned);
    }

    /// No delay and no failures any more.
    pub fn heal(&self) {
        *self.0.lock().unwrap() = Settings::default();
    }

    /// The delay of the next call.
    pub fn delay(&self) -> Duration {
        self.0.lock().unwrap().delay
    }

    /// The failure of the next call, if it is its turn to fail.
    pub fn next_failure(&self) -> Option<Status> {
        let mut settings = self.0.lock().unwrap();
        let (share, code) = settings.failing?;
        settings.due += share;
        if settings.due < 1.0 - f64::EPSILON {
            return None;
        }
        settings.due -= 1.0;
        Some(self::failure(code, settings.pushback.as_deref()))
    }

    /// A failure with this code, as a request may ask for.
    pub fn failure(&self, code: Code) -> Status {
        self::failure(code, self.0.lock().unwrap().pushback.as_deref())
    }
}

fn failure(code: Code, pushback: Option<&str>) -> Status {
    let mut status = Status::new(code, "asked to fail");
    if let Some(value) = pushback {
        let value = MetadataValue::try_from(value).expect("a header value");
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value);
    }
    status
}
