//! The service that is called over gRPC: a hello.

use std::convert::Infallible;
use std::hint::spin_loop;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// What protoc would write for `service Hello { rpc Hello(StringValue) returns (StringValue); }`.
#[derive(Clone)]
pub struct Hello {
    /// Time of the CPU that each call takes.
    pub busy: Duration,
}

impl NamedService for Hello {
    const NAME: &'static str = "bench.Hello";
}

impl Service<http::Request<Body>> for Hello {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method(self.busy);
        Box::pin(async move {
            let codec: ProstCodec<String, String> = ProstCodec::default();
            Ok(Grpc::new(codec).unary(method, request).await)
        })
    }
}

struct Method(Duration);

impl UnaryService<String> for Method {
    type Response = String;
    type Future = BoxFuture<Response<String>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let half = self.0 / 2;
        Box::pin(async move {
            // In two halves, between which other calls may run.
            if !half.is_zero() {
                spin(half);
                tokio::task::yield_now().await;
                spin(half);
            }
            Ok(Response::new(format!("hello {}", request.into_inner())))
        })
    }
}

fn spin(duration: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < duration {
        spin_loop();
    }
}
