//! The layer and the service it makes.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::request::{Services, is_json, translate};
use super::response::{GoMicroBody, GoMicroFuture};

/// Serves callers that are go-micro's gRPC client; see [the module](super).
#[derive(Clone, Debug)]
pub struct GoMicroLayer {
    services: Arc<Services>,
}

/// A server that also serves go-micro; see [`GoMicroLayer`].
#[derive(Clone, Debug)]
pub struct GoMicroService<S> {
    inner: S,
    services: Arc<Services>,
}

impl GoMicroLayer {
    /// For gRPC services of these full names, like `user.v1.UserService` or tonic's `NamedService::NAME`. Of two
    /// with one type, the part after the last dot, the first is meant.
    pub fn new(services: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { services: Arc::new(Services::new(services.into_iter().map(Into::into))) }
    }
}

impl<S> Layer<S> for GoMicroLayer {
    type Service = GoMicroService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GoMicroService { inner, services: Arc::clone(&self.services) }
    }
}

impl<S, B, R> Service<Request<B>> for GoMicroService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<GoMicroBody<R>>;
    type Error = S::Error;
    type Future = GoMicroFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match translate(&self.services, &mut request) {
            Some(caller) if is_json(request.headers()) => GoMicroFuture::refused(caller.only_protobuf()),
            caller => GoMicroFuture::new(self.inner.call(request), caller),
        }
    }
}
