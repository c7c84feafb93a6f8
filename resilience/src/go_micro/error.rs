//! Errors as go-micro reads them: JSON in the message of the status. Pure.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use serde_json::{Value, json};

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static REASON: HeaderName = HeaderName::from_static("fusebox-reason");

/// The id of an error that came from go-micro.
#[cfg(feature = "channel")]
static ID: HeaderName = HeaderName::from_static("go-micro-id");

/// What gRPC wants encoded in a message, beside what is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

const ONLY_PROTOBUF: &str = "this service reads protobuf only: let the client send application/grpc+proto, its \
                             default, in place of application/grpc+json";

/// Who asked, and by which name.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    service: String,
}

impl Caller {
    /// Somebody who calls this service by `service`.
    pub(super) fn of(service: &str) -> Self {
        Self { service: service.to_owned() }
    }

    /// The head of the answer to a request whose messages are no protobuf.
    pub(super) fn only_protobuf(&self) -> HeaderMap {
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (STATUS.clone(), HeaderValue::from_static("12")),
            (MESSAGE.clone(), HeaderValue::from_static(ONLY_PROTOBUF)),
        ]);
        self.explain(&mut headers);
        headers
    }

    /// Makes the message of an error one that go-micro reads. These are the trailers, or the head of a response
    /// without a body.
    pub(super) fn explain(&self, headers: &mut HeaderMap) {
        let code = headers.get(&STATUS).and_then(|status| status.to_str().ok()?.parse::<u8>().ok());
        let Some(code) = code.filter(|code| *code != 0) else { return };
        let message =
            headers.get(&MESSAGE).map(|message| percent_decode(message.as_bytes()).decode_utf8_lossy());
        let message = message.unwrap_or_default();
        if is_explained(&message) {
            return;
        }
        let status = http_status(code);
        let reason = headers.get(&REASON).and_then(|reason| reason.to_str().ok());
        let id = reason.map_or_else(|| self.service.clone(), |reason| format!("fusebox.{reason}"));
        let text = status.canonical_reason().unwrap_or_default();
        let error =
            json!({ "id": id, "code": status.as_u16(), "detail": message, "status": text }).to_string();
        // What is encoded is visible ASCII.
        if let Ok(message) = HeaderValue::try_from(utf8_percent_encode(&error, ENCODED).to_string()) {
            headers.insert(&MESSAGE, message);
        }
    }
}

/// Makes an error of a go-micro server one that any client of gRPC understands: the detail is its message, and a
/// code that go-micro's server had no gRPC code for, and called UNKNOWN, is the one it means. These are the
/// trailers, or the head of a response without a body; of anything else it takes no notice.
#[cfg(feature = "channel")]
pub(crate) fn unpack(headers: &mut HeaderMap) {
    let Some(message) = headers.get(&MESSAGE) else { return };
    let message = percent_decode(message.as_bytes()).decode_utf8_lossy();
    let Ok(error) = serde_json::from_str::<Value>(&message) else { return };
    let text = |key| error.get(key).and_then(Value::as_str);
    let code = error.get("code").and_then(Value::as_i64).filter(|code| *code > 0);
    let (Some(id), Some(code), Some(detail), Some(status)) =
        (text("id"), code, text("detail"), text("status"))
    else {
        return;
    };
    let detail = if detail.is_empty() { status } else { detail };
    let encoded = |text: &str| HeaderValue::try_from(utf8_percent_encode(text, ENCODED).to_string()).ok();
    let (message, id) = (encoded(detail), encoded(id));
    // What is encoded is visible ASCII.
    let (Some(message), Some(id)) = (message, id) else { return };
    headers.insert(&MESSAGE, message);
    headers.insert(&ID, id);
    if headers.get(&STATUS).is_some_and(|status| status == "2") {
        let meant = match code {
            422 => "3",
            429 => "8",
            499 => "1",
            502 => "14",
            504 => "4",
            _ => "2",
        };
        headers.insert(&STATUS, HeaderValue::from_static(meant));
    }
}

/// Is it one already, of a service behind this one that speaks go-micro?
fn is_explained(message: &str) -> bool {
    let error = serde_json::from_str::<Value>(message).ok();
    error.is_some_and(|error| error.get("code").and_then(Value::as_i64).is_some_and(|code| code > 0))
}

/// The HTTP status that means a gRPC code, where go-micro's server has one: that. Not 408 for a deadline: its
/// clients send that again, to a service that is slow already.
fn http_status(code: u8) -> StatusCode {
    match code {
        3 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        9 => StatusCode::PRECONDITION_FAILED,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        // Cancelled: by the caller, who reads no answer.
        1 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(headers: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = headers
            .iter()
            .map(|(key, value)| (HeaderName::from_static(key), HeaderValue::from_str(value).unwrap()));
        let mut headers: HeaderMap = pairs.collect();
        Caller::of("user.service").explain(&mut headers);
        headers
    }

    fn error(headers: &HeaderMap) -> Value {
        let message = headers[&MESSAGE].as_bytes();
        serde_json::from_str(&percent_decode(message).decode_utf8().unwrap()).unwrap()
    }

    #[test]
    fn an_error_is_json_with_the_status_that_means_its_code() {
        let headers =
            explained(&[("grpc-status", "5"), ("grpc-message", "no user is named J%C3%BCrgen %25")]);
        let expected = json!({ "id": "user.service", "code": 404, "detail": "no user is named Jürgen %", "status": "Not Found" });
        assert_eq!(error(&headers), expected);
        assert!(headers[&MESSAGE].to_str().unwrap().contains("J%C3%BCrgen %25"), "encoded as gRPC wants it");
        assert_eq!(headers[&STATUS], "5", "for everybody who reads gRPC");
        assert_eq!(error(&explained(&[("grpc-status", "14")]))["detail"], "");
    }

    /// What go-micro sends again is 408 and 500.
    #[test]
    fn only_what_the_service_itself_calls_internal_is_sent_again() {
        let again: Vec<u8> =
            (1..=20).filter(|code| matches!(http_status(*code).as_u16(), 408 | 500)).collect();
        assert_eq!(again, [2, 13, 15, 17, 18, 19, 20]);
        let codes: Vec<u16> = (1..=16).map(|code| http_status(code).as_u16()).collect();
        assert_eq!(codes, [499, 500, 400, 504, 404, 409, 403, 429, 412, 409, 400, 501, 500, 503, 500, 401]);
    }

    #[test]
    fn what_a_policy_answers_is_known_by_its_id() {
        let headers = explained(&[
            ("grpc-status", "14"),
            ("grpc-message", "the circuit breaker is open"),
            ("fusebox-reason", "open"),
        ]);
        let error = error(&headers);
        assert_eq!((&error["id"], &error["code"]), (&json!("fusebox.open"), &json!(503)));
        assert_eq!(headers[&REASON], "open");
    }

    #[cfg(feature = "channel")]
    #[test]
    fn an_error_of_go_micros_server_is_one_of_grpc() {
        let unpacked = |status: &str, message: &str| {
            let mut headers = HeaderMap::from_iter([
                (STATUS.clone(), HeaderValue::from_str(status).unwrap()),
                (MESSAGE.clone(), HeaderValue::from_str(message).unwrap()),
            ]);
            unpack(&mut headers);
            ["grpc-status", "grpc-message", "go-micro-id"].map(|name| {
                headers
                    .get_all(name)
                    .iter()
                    .map(|value| value.to_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
                    .join("+")
            })
        };
        let error = |code: u16, detail: &str| {
            json!({ "id": "user.service", "code": code, "detail": detail, "status": "Too Bad" }).to_string()
        };
        assert_eq!(unpacked("5", &error(404, "no Ada")), ["5", "no Ada", "user.service"]);
        assert_eq!(unpacked("5", &error(404, "no J%C3%BCrgen")), ["5", "no J%C3%BCrgen", "user.service"]);
        assert_eq!(unpacked("13", &error(500, "")), ["13", "Too Bad", "user.service"]);
        for (code, status) in [(422, "3"), (429, "8"), (499, "1"), (502, "14"), (504, "4"), (418, "2")] {
            assert_eq!(unpacked("2", &error(code, "x"))[0], status, "{code}");
        }
        assert_eq!(unpacked("13", &error(504, "x"))[0], "13", "what go-micro's server has said stays");
        for other in
            ["no Ada", "{}", r#"{"id":"a","code":0,"detail":"b","status":"c"}"#, r#"{"code":5,"detail":"b"}"#]
        {
            assert_eq!(unpacked("5", other), ["5", other, ""]);
        }
    }

    #[test]
    fn what_is_no_error_or_go_micros_own_stays() {
        let own = r#"{"id":"go.micro.srv.other","code":418,"detail":"tea","status":"I'm a teapot"}"#;
        for same in [
            &[("grpc-status", "0")][..],
            &[("grpc-status", "2"), ("grpc-message", own)],
            &[],
            &[("grpc-status", "x")],
        ] {
            let headers = explained(same);
            let told = headers.get(&MESSAGE).map(|message| message.to_str().unwrap());
            assert_eq!(told, same.iter().find(|(key, _)| *key == "grpc-message").map(|(_, value)| *value));
        }
        // No error of go-micro's has the code 0.
        for odd in [r#"{"code":0}"#, "{}", "3", "null", "[1]"] {
            assert_eq!(error(&explained(&[("grpc-status", "13"), ("grpc-message", odd)]))["detail"], odd);
        }
    }
}
