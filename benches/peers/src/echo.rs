//! The same echo, served by tonic.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tower_service::Service;

use crate::variants::grpc::v14::BytesCodec;

#[derive(Clone)]
pub struct Echo {
    /// How many messages it answers with. 1 is a unary call.
    replies: usize,
    /// How long it waits before it answers.
    delay: Duration,
    /// The unary calls that may wait so at the same time. The others stand in a queue.
    places: Option<Arc<Semaphore>>,
    calls: Arc<AtomicU64>,
}

impl Echo {
    pub fn new(replies: usize, delay: Duration, concurrency: Option<usize>) -> Self {
        Self {
            replies,
            delay,
            places: concurrency.map(|places| Arc::new(Semaphore::new(places))),
            calls: Arc::default(),
        }
    }

    /// The unary calls that it was given so far.
    pub fn calls(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.calls)
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl NamedService for Echo {
    const NAME: &'static str = "peers.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(BytesCodec);
            Ok(match echo.replies {
                1 => grpc.unary(echo, request).await,
                _ => grpc.server_streaming(echo, request).await,
            })
        })
    }
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Boxed<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.calls.fetch_add(1, Relaxed);
        let (delay, places) = (self.delay, self.places.clone());
        Box::pin(async move {
            let _place = match places {
                // Never closed, so never an error.
                Some(places) => places.acquire_owned().await.ok(),
                None => None,
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Ok(Response::new(request.into_inner()))
        })
    }
}

impl ServerStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = tokio_stream::Iter<std::vec::IntoIter<Result<Bytes, Status>>>;
    type Future = Boxed<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let replies = vec![Ok(request.into_inner()); self.replies];
        Box::pin(async move { Ok(Response::new(tokio_stream::iter(replies))) })
    }
}
