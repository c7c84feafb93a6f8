//! What go-micro's client asks, as gRPC's own clients would. Pure.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Request, Uri};

use super::error::Caller;
use crate::deadline;
use crate::layer::Protocol;

/// go-micro's client sends it with every request, and no other does.
static MARK: HeaderName = HeaderName::from_static("x-content-type");
/// How long the caller waits, in nanoseconds.
static TIMEOUT: HeaderName = HeaderName::from_static("timeout");

/// The full names of the services that are served.
#[derive(Debug)]
pub(super) struct Services(Vec<String>);

impl Services {
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        Self(names.collect())
    }

    /// The full name of what go-micro calls by `name`.
    fn find(&self, name: &str) -> Option<&str> {
        let exact = self.0.iter().find(|full| *full == name);
        let found = exact.or_else(|| self.0.iter().find(|full| type_of(full) == type_of(name)));
        found.map(String::as_str)
    }
}

fn type_of(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or_default()
}

/// If go-micro sent the request, makes it one that any gRPC service understands, and says who called.
pub(super) fn translate<B>(services: &Services, request: &mut Request<B>) -> Option<Caller> {
    let headers = request.headers();
    if Protocol::of(headers) != Protocol::Grpc || !headers.contains_key(&MARK) {
        return None;
    }
    if let Some(timeout) = timeout(headers) {
        deadline::shorten_grpc_timeout(request.headers_mut(), timeout);
    }
    let (asked, method) = request.uri().path().strip_prefix('/')?.split_once('/')?;
    // As go-micro's own server: what is before the type is the name of the service.
    let caller = Caller::of(asked.rsplit_once('.').map_or(asked, |(service, _)| service));
    if let Some(full) = services.find(asked).filter(|full| *full != asked)
        && let Some(uri) = with_path(request.uri(), &format!("/{full}/{method}"))
    {
        *request.uri_mut() = uri;
    }
    Some(caller)
}

/// Whether a client was told to send JSON, which no service here reads.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|sent| sent.as_bytes().starts_with(b"application/grpc+json"))
}

/// go-micro's server reads a number without a sign; of anything else it takes no notice, and neither do we.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    headers.get(&TIMEOUT)?.to_str().ok()?.parse().ok().map(Duration::from_nanos)
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Services {
        Services::new(
            ["user.v1.UserService", "admin.v1.Admin", "user.v2.UserService"].map(str::to_owned).into_iter(),
        )
    }

    fn request(path: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let uri = format!("http://10.0.0.1:50051{path}");
        let request =
            headers.iter().fold(Request::post(uri), |request, (key, value)| request.header(*key, *value));
        request.body(()).unwrap()
    }

    const CLIENT: (&str, &str) = ("content-type", "application/grpc+proto");
    const MARKED: (&str, &str) = ("x-content-type", "application/grpc+proto");

    #[test]
    fn a_name_in_consul_before_the_type_means_the_service_of_that_type() {
        for (asked, served) in [
            ("/user.service.UserService/GetUser", "/user.v1.UserService/GetUser"),
            ("/UserService/GetUser", "/user.v1.UserService/GetUser"),
            ("/user.v2.UserService/GetUser", "/user.v2.UserService/GetUser"),
            ("/anything.Admin/Reset", "/admin.v1.Admin/Reset"),
            ("/user.service.Other/GetUser", "/user.service.Other/GetUser"),
            ("/user.service.XUserService/GetUser", "/user.service.XUserService/GetUser"),
            ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Check"),
            ("/", "/"),
            ("/UserService", "/UserService"),
        ] {
            let mut request = request(asked, &[CLIENT, MARKED]);
            translate(&services(), &mut request);
            assert_eq!(request.uri().path(), served, "{asked}");
            assert_eq!(request.uri().authority().unwrap(), "10.0.0.1:50051");
        }
    }

    #[test]
    fn nobody_else_is_translated() {
        let timeout = ("timeout", "1000000");
        for headers in [
            &[CLIENT, timeout][..],
            &[("content-type", "application/json"), MARKED, timeout],
            &[("content-type", "application/grpc-web+proto"), MARKED, timeout],
            &[MARKED, timeout],
        ] {
            let mut request = request("/user.service.UserService/GetUser", headers);
            assert!(translate(&services(), &mut request).is_none(), "{headers:?}");
            assert_eq!(request.uri().path(), "/user.service.UserService/GetUser");
            assert!(!request.headers().contains_key("grpc-timeout"), "{headers:?}");
        }
    }

    #[test]
    fn the_earlier_of_both_deadlines_holds() {
        for (grpc, nanos, holds) in [
            (None, "250000000", Some("250000u")),
            (None, "1", Some("1u")),
            (None, "0", Some("1u")),
            (Some("1S"), "250000000", Some("250000u")),
            (Some("100m"), "250000000", Some("100m")),
            (Some("1S"), "-5", Some("1S")),
            (Some("1S"), "soon", Some("1S")),
            (None, "99999999999999999999999", None),
            (None, "18446744073709551615", Some("99999999S")),
        ] {
            let headers = [
                Some(CLIENT),
                Some(MARKED),
                Some(("timeout", nanos)),
                grpc.map(|grpc| ("grpc-timeout", grpc)),
            ];
            let headers: Vec<_> = headers.into_iter().flatten().collect();
            let mut request = request("/user.service.UserService/GetUser", &headers);
            translate(&services(), &mut request);
            let found = request.headers().get("grpc-timeout").map(|value| value.to_str().unwrap());
            assert_eq!(found, holds, "{grpc:?} {nanos}");
        }
    }
}
