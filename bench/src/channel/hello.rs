//! One unary call, as a generated client makes it.

use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{GrpcMethod, Request, Status};
use tonic_prost::ProstCodec;

/// A client of the service; clones share its channel.
pub trait Hello: Clone + 'static {
    /// Calls once; the answer must be the right one.
    fn hello(&mut self) -> impl Future<Output = Result<(), Status>>;
}

impl<S> Hello for Grpc<S>
where
    S: GrpcService<Body> + Clone + 'static,
    S::Error: Into<StdError>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    async fn hello(&mut self) -> Result<(), Status> {
        self.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
        let path = PathAndQuery::from_static("/bench.Hello/Hello");
        let codec: ProstCodec<String, String> = ProstCodec::default();
        let mut request = Request::new("Ada".to_owned());
        request.extensions_mut().insert(GrpcMethod::new("bench.Hello", "Hello"));
        let answer = self.unary(request, path, codec).await?.into_inner();
        if answer == "hello Ada" { Ok(()) } else { Err(Status::internal(answer)) }
    }
}
