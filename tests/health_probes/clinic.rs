//! Health services of real servers, which count what they are asked: tonic-health's own, or one that says what the test
//! tells it to.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

/// What a health service does about a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    Serving,
    NotServing,
    Unknown,
    ServiceUnknown,
    /// This code, in place of an answer or at the end of it.
    Fails(Code),
    /// It says that it serves, and then the answer ends with UNAVAILABLE.
    ServesAndDies,
    /// This code, when its own clock says that the time of the question is over.
    RunsOut(Code),
    /// Nothing, ever.
    Nothing,
}

use Says::{Fails, Nothing, RunsOut, ServesAndDies};

/// Half of the shortest time that a test gives a question.
const ITS_CLOCK: Duration = Duration::from_millis(50);

/// The health service of one server.
#[derive(Debug)]
pub struct Clinic {
    kind: Kind,
    /// It takes no questions without this.
    token: Option<&'static str>,
    asked: Mutex<Vec<Asked>>,
    open: AtomicU64,
    peak: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    /// tonic-health's.
    Real(HealthService),
    Told {
        watch: watch::Sender<Says>,
        check: watch::Sender<Says>,
    },
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: &'static str,
    pub service: String,
    pub authorization: Option<String>,
}

/// What the answer to a `Watch` is.
type Statements = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

impl Clinic {
    /// One that says this.
    pub fn that(says: Says) -> Arc<Self> {
        Self::with(says, None)
    }

    /// One that says this to those that have this token.
    pub fn private(says: Says, token: &'static str) -> Arc<Self> {
        Self::with(says, Some(token))
    }

    /// tonic-health's own, and what it is told through.
    pub fn real() -> (HealthReporter, Arc<Self>) {
        let reporter = HealthReporter::new();
        let service = HealthService::from_health_reporter(reporter.clone());
        (reporter, Self::new(Kind::Real(service), None))
    }

    fn with(says: Says, token: Option<&'static str>) -> Arc<Self> {
        let kind = Kind::Told {
            watch: watch::Sender::new(says),
            check: watch::Sender::new(says),
        };
        Self::new(kind, token)
    }

    fn new(kind: Kind, token: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self {
            kind,
            token,
            asked: Mutex::default(),
            open: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        })
    }

    /// For [`EchoServerBuilder::beside`](crate::support::server::EchoServerBuilder::beside).
    pub fn routes(self: &Arc<Self>) -> Routes {
        Routes::new(HealthServer::new(Service(Arc::clone(self))))
    }

    /// What it says from now on, also to those that are listening.
    pub fn say(&self, says: Says) {
        self.say_to_watch(says);
        self.say_to_check(says);
    }

    pub fn say_to_watch(&self, says: Says) {
        match &self.kind {
            Kind::Told { watch, .. } => drop(watch.send_replace(says)),
            Kind::Real(_) => panic!("its reporter is told"),
        }
    }

    pub fn say_to_check(&self, says: Says) {
        match &self.kind {
            Kind::Told { check, .. } => drop(check.send_replace(says)),
            Kind::Real(_) => panic!("its reporter is told"),
        }
    }

    /// All questions, in their order.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Their number.
    pub fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The number of those to this method.
    pub fn times_by(&self, method: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|it| it.method == method).count()
    }

    /// Questions that are being answered now: an open `Watch` is.
    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// The most of them at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(SeqCst)
    }

    fn begin(
        self: &Arc<Self>,
        method: &'static str,
        request: &Request<HealthCheckRequest>,
    ) -> Result<Mark, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(|it| it.to_str().unwrap().to_owned());
        let wanted = self.token.map(|token| format!("Bearer {token}"));
        let welcome = wanted.is_none() || authorization == wanted;
        self.asked.lock().unwrap().push(Asked {
            method,
            service: request.get_ref().service.clone(),
            authorization,
        });
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.peak.fetch_max(open, SeqCst);
        let mark = Mark(Arc::clone(self));
        match welcome {
            true => Ok(mark),
            false => Err(Status::unauthenticated("who is asking?")),
        }
    }
}

/// A question that is being answered.
#[derive(Debug)]
struct Mark(Arc<Clinic>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// The service that tonic serves.
#[derive(Debug)]
struct Service(Arc<Clinic>);

#[async_trait]
impl Health for Service {
    type WatchStream = Statements;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let _mark = self.0.begin("Check", &request)?;
        let says = match &self.0.kind {
            Kind::Real(service) => return service.check(request).await,
            Kind::Told { check, .. } => *check.borrow(),
        };
        match says {
            // As the service's documentation has it: only `Watch` has a word for that.
            Says::ServiceUnknown => Err(Status::not_found("unknown service")),
            Nothing => std::future::pending().await,
            RunsOut(code) => {
                tokio::time::sleep(ITS_CLOCK).await;
                Err(Status::new(code, "the time is over"))
            }
            says => says.spoken().map(Response::new),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Statements>, Status> {
        let mark = self.0.begin("Watch", &request)?;
        let says = match &self.0.kind {
            Kind::Real(service) => {
                let stream = service.watch(request).await?.into_inner();
                let marked = stream.map(move |statement| {
                    let _mark = &mark;
                    statement
                });
                return Ok(Response::new(Box::pin(marked)));
            }
            Kind::Told { watch, .. } => watch.subscribe(),
        };
        let first = *says.borrow();
        if let Fails(code) | RunsOut(code) = first {
            return Err(Status::new(code, "asked to fail"));
        }
        Ok(Response::new(Box::pin(statements(says, mark))))
    }
}

/// Says what it is told to, now and with each change.
fn statements(
    mut says: watch::Receiver<Says>,
    mark: Mark,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> {
    says.mark_changed();
    unfold((says, mark, false), |(mut says, mark, dies)| async move {
        if dies {
            let death = Err(Status::unavailable("asked to die"));
            return Some((death, (says, mark, false)));
        }
        loop {
            says.changed().await.ok()?;
            let now = *says.borrow_and_update();
            if now != Nothing {
                return Some((now.spoken(), (says, mark, now == ServesAndDies)));
            }
        }
    })
}

impl Says {
    fn spoken(self) -> Result<HealthCheckResponse, Status> {
        let status = match self {
            Self::Serving | ServesAndDies => ServingStatus::Serving,
            Self::NotServing => ServingStatus::NotServing,
            Self::ServiceUnknown => ServingStatus::ServiceUnknown,
            Self::Unknown | Nothing => ServingStatus::Unknown,
            Fails(code) | RunsOut(code) => return Err(Status::new(code, "asked to fail")),
        };
        let status = status.into();
        Ok(HealthCheckResponse { status })
    }
}
