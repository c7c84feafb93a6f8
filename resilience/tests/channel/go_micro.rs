//! An endpoint that is a go-micro server: its errors are those of any other.

use bytes::Bytes;
use fusebox::Fusebox;
use fusebox::channel::BoxError;
use fusebox::discovery::Discovery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::body::Body;
use tower::{Service as _, service_fn};

use crate::common::{command, policy};
use crate::fleet::{address, request};

const ERROR: &str =
    r#"{"id":"user.service","code":429,"detail":"too many of you","status":"Too Many Requests"}"#;

fn said(message: &'static str) -> HeaderMap {
    HeaderMap::from_iter(
        [("grpc-status", "2"), ("grpc-message", message)]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
    )
}

/// What a caller gets of an endpoint that says this, in the head of its answer or after its body.
async fn heard(message: &'static str, at_once: bool) -> HeaderMap {
    let answer = move |_: Request<Body>| {
        let mut response = Response::new(Body::empty());
        if at_once {
            *response.headers_mut() = said(message);
        } else {
            let frames = [Frame::data(Bytes::from_static(b"half")), Frame::trailers(said(message))];
            let frames = frames.map(Ok::<_, tonic::Status>);
            *response.body_mut() = Body::new(StreamBody::new(futures::stream::iter(frames)));
        }
        std::future::ready(Ok::<_, BoxError>(response))
    };
    let discovery = Discovery::fixed([address(0)]);
    let fusebox = Fusebox::fixed(policy(command()));
    let discover = fusebox.discover_in(&discovery, "user.service").command("c");
    let mut channel = discover.channel_over(move |_| service_fn(answer));
    let response = channel.call(request(Body::empty())).await.unwrap();
    if at_once {
        return response.headers().clone();
    }
    response.into_body().collect().await.unwrap().trailers().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_plain_status() {
    for at_once in [true, false] {
        let headers = heard(ERROR, at_once).await;
        let status = tonic::Status::from_header_map(&headers).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "too many of you"));
        assert_eq!(headers["go-micro-id"], "user.service");
        let headers = heard("any other text", at_once).await;
        assert_eq!(headers, said("any other text"));
    }
}
