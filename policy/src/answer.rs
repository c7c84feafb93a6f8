//! An answer that the policy itself gives.

use serde::{Deserialize, Serialize};

use crate::method_match::MethodMatch;

/// The largest message or body, in bytes.
const MAX_BYTES: usize = 4096;
/// The longest content type, in bytes.
const MAX_CONTENT_TYPE: usize = 128;

/// What a server answers in place of an error, in the shape of the method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum StaticAnswer {
    /// The response message of a gRPC method.
    Message {
        /// The message as protobuf writes it in JSON: an object, at most 4096 bytes.
        #[cfg_attr(feature = "crd", schemars(extend("maxLength" = MAX_BYTES, "contentMediaType" = "application/json")))]
        json: String,
    },
    /// The response of an HTTP method, with status 200.
    Body {
        /// Like `application/json`: visible ASCII and spaces, at most 128 bytes.
        #[cfg_attr(feature = "crd", schemars(extend("pattern" = "^[ -~]{1,128}$")))]
        content_type: String,
        /// Sent as it stands, at most 4096 bytes.
        #[cfg_attr(feature = "crd", schemars(extend("maxLength" = MAX_BYTES)))]
        body: String,
    },
}

impl StaticAnswer {
    /// What is wrong with it as the answer to the requests of `matches`. None: nothing.
    pub(crate) fn violation(&self, matches: &MethodMatch) -> Option<String> {
        let too_large = |what: &str, size: usize| {
            (size > MAX_BYTES).then(|| format!("{what} has {size} bytes, more than {MAX_BYTES}"))
        };
        match (self, matches) {
            (Self::Message { json }, MethodMatch::Grpc { method: Some(_), .. }) => {
                let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json);
                too_large("message", json.len())
                    .or_else(|| object.is_err().then(|| "message must be a JSON object".to_owned()))
            }
            (Self::Message { .. }, MethodMatch::Grpc { method: None, .. }) => {
                Some("message needs match.grpc.method, as each method of a service has its own".to_owned())
            }
            (Self::Message { .. }, MethodMatch::Http { .. }) => {
                Some("message is for a gRPC method: for HTTP give contentType and body".to_owned())
            }
            (Self::Body { content_type, body }, MethodMatch::Http { .. }) => {
                let printable = content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                let fits = (1..=MAX_CONTENT_TYPE).contains(&content_type.len());
                let wrong = || {
                    format!("contentType must be 1 to {MAX_CONTENT_TYPE} visible ASCII characters or spaces")
                };
                too_large("body", body.len()).or_else(|| (!printable || !fits).then(wrong))
            }
            (Self::Body { .. }, MethodMatch::Grpc { .. }) => {
                Some("contentType and body are for HTTP: for a gRPC method give message".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_shape_of_its_method() {
        let grpc = |method: Option<&str>| MethodMatch::Grpc {
            service: "a.S".into(),
            method: method.map(Into::into),
        };
        let http = MethodMatch::Http { method: None, path_prefix: "/".into() };
        let message = |json: &str| StaticAnswer::Message { json: json.into() };
        let body = |content_type: &str, body: &str| StaticAnswer::Body {
            content_type: content_type.into(),
            body: body.into(),
        };
        assert_eq!(message("{\"name\":\"x\"}").violation(&grpc(Some("Get"))), None);
        assert_eq!(body("text/plain; charset=utf-8", "hello").violation(&http), None);
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BYTES));
        for (answer, matches, part) in [
            (message("{}"), grpc(None), "needs match.grpc.method"),
            (message("{}"), http.clone(), "is for a gRPC method"),
            (message("[]"), grpc(Some("Get")), "must be a JSON object"),
            (message("{} {}"), grpc(Some("Get")), "must be a JSON object"),
            (message(&large), grpc(Some("Get")), "more than 4096"),
            (body("text/plain", ""), grpc(Some("Get")), "are for HTTP"),
            (body("text/plain", &large), http.clone(), "more than 4096"),
            (body("", ""), http.clone(), "contentType must be 1 to 128"),
            (body("a\r\nb: c", ""), http.clone(), "contentType must be"),
            (body(&"x".repeat(129), ""), http.clone(), "contentType must be"),
        ] {
            let found = answer.violation(&matches).unwrap_or_default();
            assert!(found.contains(part), "{answer:?} for {matches}: {found}");
        }
    }

    #[test]
    fn it_is_named_by_its_kind() {
        let json = r#"{"body":{"contentType":"text/plain","body":"hello"}}"#;
        let answer: StaticAnswer = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), json);
        assert!(serde_json::from_str::<StaticAnswer>(r#"{"message":{"json":"{}","status":1}}"#).is_err());
    }
}
