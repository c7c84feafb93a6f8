//! Responses and bodies that behave as a test says, without a network.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};

/// The connection broke, or a service did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl fusebox::Classify for Broken {
    fn class(&self) -> fusebox::Class {
        fusebox::Class::Failure
    }
}

/// What a body does when it is polled.
#[derive(Clone, Debug)]
pub enum Step {
    Data(&'static str),
    Status(&'static str),
    /// Trailers without a status.
    Trailers,
    Break,
    /// Pending once, woken at once.
    Wait,
    Panic,
}

/// A body of steps.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    pub left: VecDeque<Step>,
    /// Whether it says that it is at its end before it is asked once more.
    pub says_end: bool,
    pub exact: Option<u64>,
}

impl Steps {
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { left: steps.into_iter().collect(), says_end: false, exact: None }
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(match self.left.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))),
            Some(Step::Status(status)) => Some(Ok(Frame::trailers(header("grpc-status", status)))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(header("checksum", "1")))),
            Some(Step::Break) => Some(Err(Broken)),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Panic) => panic!("on purpose"),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.says_end && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub fn header(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(value).unwrap());
    headers
}

/// A response with this status, these headers and this body.
pub fn response<B>(status: u16, headers: &[(&'static str, &str)], body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    response
}

pub fn grpc() -> Request<()> {
    Request::post("http://service/user.v1.UserService/GetUser")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

pub fn get() -> Request<()> {
    Request::get("http://service/users/ada").body(()).unwrap()
}
