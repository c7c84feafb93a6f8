//! A connection to one endpoint.

use std::fmt;
use std::future::poll_fn;

use http::request::Parts;
use http::{Method, Request, Response};
use tonic::body::Body;
use tonic::transport;
use tower::Service as _;
use tower::util::BoxCloneSyncService;

use super::BoxError;

/// A connection to one endpoint; clones are one and the same.
#[derive(Clone)]
pub(super) enum Link {
    /// tonic's, as it is: a box for each clone and each call is a good part of what a call costs here.
    Plain(transport::Channel),
    /// A client of the caller's own.
    Own(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>),
}

impl Link {
    /// One attempt's request, of what may be needed for another.
    fn request(&self, parts: &mut Parts, body: Body) -> Request<Body> {
        // Of extensions tonic's connection reads none but CONNECT's: the first attempt may take them.
        if matches!(self, Self::Plain(_)) && parts.method != Method::CONNECT {
            let extensions = std::mem::take(&mut parts.extensions);
            let mut request = Request::from_parts(parts.clone(), body);
            *request.extensions_mut() = extensions;
            return request;
        }
        Request::from_parts(parts.clone(), body)
    }

    /// Sends a request of these parts, with what `finish` adds, once there is a connection. It is made only
    /// then: so it is not carried along by a future that waits.
    pub(super) async fn send(
        mut self,
        parts: &mut Parts,
        body: Body,
        finish: impl FnOnce(&mut Request<Body>),
    ) -> Result<Response<Body>, BoxError> {
        poll_fn(|cx| match &mut self {
            Self::Plain(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Own(service) => service.poll_ready(cx),
        })
        .await?;
        let mut request = self.request(parts, body);
        finish(&mut request);
        match &mut self {
            Self::Plain(channel) => {
                let answer = channel.call(request);
                Ok(answer.await?)
            }
            Self::Own(service) => {
                let answer = service.call(request);
                answer.await
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn extensions_go_with_the_first_attempt_and_with_all_where_somebody_may_read_them() {
        let plain = Link::Plain(transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let own = tower::service_fn(async |_: Request<Body>| Ok(Response::new(Body::empty())));
        let own = Link::Own(BoxCloneSyncService::new(own));
        let attempts = |link: &Link, method: Method| {
            let mut parts = Request::builder().method(method).body(()).unwrap().into_parts().0;
            parts.extensions.insert(7_u8);
            parts.headers.insert("a", http::HeaderValue::from_static("b"));
            [(); 2].map(|()| {
                let request = link.request(&mut parts, Body::empty());
                assert_eq!(request.headers()["a"], "b");
                request.extensions().get::<u8>().copied()
            })
        };
        assert_eq!(attempts(&plain, Method::POST), [Some(7), None]);
        assert_eq!(attempts(&plain, Method::CONNECT), [Some(7), Some(7)]);
        assert_eq!(attempts(&own, Method::POST), [Some(7), Some(7)]);
    }
}
