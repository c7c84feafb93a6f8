//! Answers that the policy itself gives, made ready when the policy is.

use bytes::{BufMut, Bytes, BytesMut};
#[cfg(feature = "etcd")]
use fusebox_policy::policy::Inbound;
use fusebox_policy::policy::{MethodMatch, StaticAnswer};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};

use super::answer::Answer;
use super::body::Answered;
use super::descriptors::Descriptors;
use super::protocol::Protocol;

/// An answer as it goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A message in the frame that gRPC puts around it.
    Grpc(Bytes),
    Http(HeaderValue, Bytes),
}

impl Ready {
    /// Makes an answer ready. Says what is wrong with it, if anything.
    pub(crate) fn new(
        matches: &MethodMatch,
        answer: &StaticAnswer,
        descriptors: &Descriptors,
    ) -> Result<Self, String> {
        match (answer, matches) {
            (StaticAnswer::Message { json }, MethodMatch::Grpc { service, method: Some(method) }) => {
                let message = descriptors.encode(service, method, json)?;
                let length = u32::try_from(message.len()).map_err(|_| "it is too long".to_owned())?;
                let mut frame = BytesMut::with_capacity(5 + message.len());
                frame.put_u8(0); // not compressed
                frame.put_u32(length);
                frame.put(message.as_slice());
                Ok(Self::Grpc(frame.freeze()))
            }
            (StaticAnswer::Body { content_type, body }, MethodMatch::Http { .. }) => {
                let content_type = HeaderValue::from_str(content_type)
                    .map_err(|_| format!("{content_type:?} is no content type"))?;
                Ok(Self::Http(content_type, Bytes::from(body.clone())))
            }
            _ => Err("it has not the shape of the method".to_owned()),
        }
    }

    /// The response in place of `instead`, to a request of that protocol; None: it does not fit.
    pub(super) fn response(&self, protocol: Protocol, instead: Answer) -> Option<Response<Answered>> {
        let (content_type, answered) = match (self, protocol) {
            (Self::Grpc(frame), Protocol::Grpc) => {
                let ok = HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("0"),
                )]);
                let content_type = HeaderValue::from_static("application/grpc");
                (content_type, Answered { data: Some(frame.clone()), trailers: Some(ok) })
            }
            (Self::Http(content_type, body), Protocol::Http) => {
                (content_type.clone(), Answered::from(body.clone()))
            }
            _ => return None,
        };
        let mut response = Response::new(answered);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert("fusebox-fallback", HeaderValue::from_static("true"));
        headers.insert("fusebox-reason", HeaderValue::from_static(instead.reason()));
        Some(response)
    }
}

/// What is wrong with the answers of a policy.
#[cfg(feature = "etcd")]
pub(crate) fn violations(inbound: &Inbound, descriptors: &Descriptors) -> Vec<String> {
    let answers = inbound.methods.iter().filter_map(|method| {
        let answer = method.policy.fallback.as_ref()?;
        let problem = Ready::new(&method.matches, answer, descriptors).err()?;
        Some(format!("inbound {}: fallback: {problem}", method.matches))
    });
    answers.collect()
}
