//! The echo service of `proto/echo.proto`, counting what it handles.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use trunkline_proto::echo_server::Echo;
use trunkline_proto::{EchoReply, EchoRequest};

use super::behaviour::Behaviour;
use super::journal::{CallMark, Journal};

/// The service of one server.
#[derive(Clone, Debug)]
pub struct EchoService {
    pub name: Arc<str>,
    pub journal: Arc<Journal>,
    pub behaviour: Arc<Behaviour>,
}

/// A reply, or the failure that was asked for.
type Answer = Result<EchoReply, Status>;

#[async_trait]
impl Echo for EchoService {
    type ServerStreamStream = Replies;
    type BidiStreamStream = Replies;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let request = request.into_inner();
        let mark = self.journal.call(request.id);
        let answer = self.answer(request, 0).await;
        finish(mark, &answer);
        answer.map(Response::new)
    }

    /// Waits before each reply. A request that asks both for replies and for a failure gets the failure after its
    /// replies; one with `repeat` 0 gets only the failure, in place of response headers.
    async fn server_stream(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Replies>, Status> {
        let request = request.into_inner();
        let mark = self.journal.call(request.id);
        if request.repeat == 0 && request.fail_code != 0 {
            let answer = self.answer(request, 0).await;
            finish(mark, &answer);
            return Err(answer.expect_err("the request asks to fail"));
        }
        let replies = request.repeat.max(1);
        let turns = replies + u32::from(request.fail_code != 0);
        let service = self.clone();
        let stream = tokio_stream::iter(0..turns).then(move |sequence| {
            let service = service.clone();
            let mut request = request.clone();
            if sequence < replies {
                request.fail_code = 0;
            }
            async move { Ok(service.answer(request, sequence).await) }
        });
        Ok(Response::new(Replies::new(stream, mark)))
    }

    /// The call's id is the first message's.
    async fn client_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let mut messages = request.into_inner();
        let Some(mut joined) = messages.message().await? else {
            return Err(Status::invalid_argument("no message"));
        };
        let mark = self.journal.call(joined.id);
        while joined.fail_code == 0 {
            // A stream that breaks off leaves the mark unfinished.
            let Some(message) = messages.message().await? else {
                break;
            };
            joined.payload.extend(message.payload);
            joined.delay_ms = joined.delay_ms.max(message.delay_ms);
            joined.fail_code = message.fail_code;
        }
        let answer = self.answer(joined, 0).await;
        finish(mark, &answer);
        answer.map(Response::new)
    }

    /// The call's id is the first message's; response headers leave once it came.
    async fn bidi_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else {
            return Err(Status::invalid_argument("no message"));
        };
        let mark = self.journal.call(first.id);
        let service = self.clone();
        let mut sequence = 0;
        let stream = tokio_stream::once(Ok(first))
            .chain(messages)
            .then(move |message| {
                let service = service.clone();
                let turn = sequence;
                sequence += 1;
                async move { Ok(service.answer(message?, turn).await) }
            });
        Ok(Response::new(Replies::new(stream, mark)))
    }
}

impl EchoService {
    /// One reply, or the failure that the request or the server's behaviour calls for, after both delays.
    async fn answer(&self, request: EchoRequest, sequence: u32) -> Answer {
        let delay = self.behaviour.delay() + Duration::from_millis(request.delay_ms.into());
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if request.fail_code != 0 {
            let code = Code::from(i32::try_from(request.fail_code).unwrap_or(i32::MAX));
            return Err(self.behaviour.failure(code));
        }
        if let Some(status) = self.behaviour.next_failure() {
            return Err(status);
        }
        Ok(EchoReply {
            id: request.id,
            payload: request.payload,
            server: self.name.to_string(),
            sequence,
        })
    }
}

/// The answer is all that the caller gets.
fn finish(mark: CallMark, answer: &Answer) {
    if matches!(answer, Err(status) if status.code() == Code::Unavailable) {
        mark.give_leave();
    }
    mark.finish();
}

/// The replies of a streaming call, with its mark. An error of the outer kind is the caller's stream breaking off.
pub struct Replies {
    answers: Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>,
    mark: Option<CallMark>,
}

impl Replies {
    fn new(
        answers: impl Stream<Item = Result<Answer, Status>> + Send + 'static,
        mark: CallMark,
    ) -> Self {
        Self {
            answers: Box::pin(answers),
            mark: Some(mark),
        }
    }
}

impl Stream for Replies {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let next = ready!(self.answers.as_mut().poll_next(cx));
        match &next {
            Some(Ok(Ok(_))) => {}
            // Tonic takes nothing after a failure.
            Some(Ok(Err(_))) | None => drop(self.mark.take().map(CallMark::finish)),
            Some(Err(_)) => drop(self.mark.take()),
        }
        Poll::Ready(next.map(|answer| answer?))
    }
}
