//! What requests are held to.

use std::time::Duration;

use super::limits::RateLimitBuilder;
use super::notes::Notes;
use crate::policy::{MethodMatch, ServerPolicy, StaticAnswer};

/// The policy of a method. What is not said is that of the default method.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MethodBuilder {
    timeout: Option<Duration>,
    max_concurrent_requests: Option<u64>,
    rate_limit: Option<RateLimitBuilder>,
    fallback: Option<StaticAnswer>,
}

impl MethodBuilder {
    /// After it the work is cancelled and the caller told: whole milliseconds, 1 ms to 1 h.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Requests in flight at once; one more is refused at once: 1 to 1,000,000.
    pub const fn max_concurrent_requests(mut self, limit: u64) -> Self {
        self.max_concurrent_requests = Some(limit);
        self
    }

    /// Requests over time; one more is refused at once.
    pub fn rate_limit(mut self, of: impl FnOnce(RateLimitBuilder) -> RateLimitBuilder) -> Self {
        self.rate_limit = Some(of(self.rate_limit.unwrap_or_default()));
        self
    }

    /// What a gRPC method answers in place of a refusal or a timeout: its response message as
    /// protobuf writes it in JSON, an object of at most 4096 bytes. Not for the default method. The library
    /// needs the service's descriptors to encode it.
    pub fn fallback_message(mut self, json: impl Into<String>) -> Self {
        self.fallback = Some(StaticAnswer::Message { json: json.into() });
        self
    }

    /// What an HTTP method answers with status 200 in place of a refusal or a timeout: at most
    /// 4096 bytes. Not for the default method.
    pub fn fallback_body(mut self, content_type: impl Into<String>, body: impl Into<String>) -> Self {
        self.fallback = Some(StaticAnswer::Body { content_type: content_type.into(), body: body.into() });
        self
    }

    pub(super) fn finish(self, notes: &mut Notes) -> ServerPolicy {
        ServerPolicy {
            timeout_ms: notes.millis("timeout", self.timeout),
            max_concurrent_requests: notes.number("maxConcurrentRequests", self.max_concurrent_requests),
            rate_limit: self.rate_limit.and_then(|rate| rate.finish(notes)),
            fallback: self.fallback,
        }
    }
}

/// What no resource could declare as a match: the patterns are those of the custom resource.
pub(super) fn wrong_match(matches: &MethodMatch) -> Option<String> {
    match matches {
        MethodMatch::Grpc { service, method } => {
            if !is_identifier(service, 253, ".") {
                return Some(format!("a gRPC service is named like user.v1.UserService, not {service:?}"));
            }
            let method = method.as_ref().filter(|method| !is_identifier(method, 128, ""))?;
            Some(format!("a gRPC method is named like GetUser, not {method:?}"))
        }
        MethodMatch::Http { method, path_prefix } => {
            if let Some(method) = method.as_ref().filter(|method| {
                !(1..=16).contains(&method.len()) || !method.bytes().all(|byte| byte.is_ascii_uppercase())
            }) {
                return Some(format!("an HTTP method is 1 to 16 capitals like GET, not {method:?}"));
            }
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~!$&'()*+,;=:@%/-".contains(&byte);
            let fits = (1..=1024).contains(&path_prefix.len()) && path_prefix.starts_with('/');
            (!fits || !path_prefix.bytes().all(plain)).then(|| {
                format!(
                    "a path prefix starts with / and has at most 1024 characters of a URL's path, unlike \
                         {path_prefix:?}"
                )
            })
        }
    }
}

fn is_identifier(name: &str, max: usize, also: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || also.contains(c);
    (1..=max).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit() || also.contains(c))
        && name.chars().all(plain)
}
