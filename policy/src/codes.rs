//! Codes of errors, and how a command counts them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most codes in one list.
pub(crate) const MAX_CODES: usize = 32;

/// The gRPC codes by number, 1 to 16 (the gRPC documentation, statuscodes.md): all but OK.
const GRPC: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The pattern of a code: a name of [`GRPC`], or an HTTP status from 400 to 599.
#[cfg(feature = "crd")]
pub(crate) const PATTERN: &str = "^(CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|\
    ALREADY_EXISTS|PERMISSION_DENIED|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|\
    UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED|[45][0-9]{2})$";

/// How a call ended that did not succeed: as text `NOT_FOUND` or `404`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "crd", schemars(extend("pattern" = PATTERN)))]
#[serde(try_from = "String", into = "String")]
pub enum ErrorCode {
    /// A gRPC code by its number, 1 to 16.
    Grpc(u8),
    /// An HTTP status, 400 to 599.
    Http(u16),
}

/// Not the code of an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no error code: write a gRPC code like NOT_FOUND, or an HTTP status from 400 to 599 like \"404\""
)]
pub struct UnknownCode(String);

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let named = GRPC.iter().zip(1..).find(|(name, _)| **name == text).map(|(_, code)| Self::Grpc(code));
        let status = || {
            // A sign would parse as well.
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let status = text.parse().ok().filter(|status| digits && (400..600).contains(status));
            status.map(Self::Http)
        };
        named.or_else(status).ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

impl TryFrom<String> for ErrorCode {
    type Error = UnknownCode;

    fn try_from(text: String) -> Result<Self, UnknownCode> {
        text.parse()
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.to_string()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(code) => match usize::from(*code).checked_sub(1).and_then(|n| GRPC.get(n)) {
                Some(name) => f.write_str(name),
                None => write!(f, "{code}"),
            },
            Self::Http(status) => write!(f, "{status}"),
        }
    }
}

/// Where a command's classes of errors differ from the default. A code is in one list at most; either list
/// has at most 32.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorClasses {
    /// Not counted, like the client's errors.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[cfg_attr(feature = "crd", schemars(extend("maxItems" = MAX_CODES)))]
    pub ignore: BTreeSet<ErrorCode>,
    /// Counted as failures, although client errors by default.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[cfg_attr(feature = "crd", schemars(extend("maxItems" = MAX_CODES)))]
    pub count: BTreeSet<ErrorCode>,
}

impl ErrorClasses {
    /// Nothing differs from the default.
    pub fn is_empty(&self) -> bool {
        self.ignore.is_empty() && self.count.is_empty()
    }

    /// What is wrong with the lists.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, list) in [("ignore", &self.ignore), ("count", &self.count)] {
            if list.len() > MAX_CODES {
                found.push(format!("errors.{name}: at most {MAX_CODES} codes"));
            }
        }
        let both: Vec<_> = self.ignore.intersection(&self.count).map(ToString::to_string).collect();
        if !both.is_empty() {
            found.push(format!("errors: {} cannot be both ignored and counted", both.join(", ")));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for code in (1..=16).map(ErrorCode::Grpc).chain((400..600).map(ErrorCode::Http)) {
            assert_eq!(code.to_string().parse(), Ok(code));
        }
        assert_eq!(serde_json::to_string(&ErrorCode::Grpc(5)).unwrap(), "\"NOT_FOUND\"");
        assert_eq!("UNAUTHENTICATED".parse(), Ok(ErrorCode::Grpc(16)));
    }

    #[cfg(feature = "crd")]
    #[test]
    fn the_pattern_names_all_codes() {
        assert_eq!(PATTERN, format!("^({}|[45][0-9]{{2}})$", GRPC.join("|")));
    }

    #[test]
    fn what_is_no_error_is_named() {
        for text in ["OK", "not_found", "NotFound", "399", "600", "+404", "0404", "404 ", "5", ""] {
            let error = text.parse::<ErrorCode>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is no error code")), "{error}");
        }
        let error = serde_json::from_str::<ErrorClasses>(r#"{"ignore":["OK"]}"#).unwrap_err();
        assert!(error.to_string().contains("\"OK\" is no error code"), "{error}");
    }

    #[test]
    fn a_code_in_both_lists_is_a_violation() {
        let lists: ErrorClasses =
            serde_json::from_str(r#"{"ignore":["404","NOT_FOUND"],"count":["NOT_FOUND"]}"#).unwrap();
        assert_eq!(lists.violations(), ["errors: NOT_FOUND cannot be both ignored and counted"]);
        let many = ErrorClasses { count: (400..433).map(ErrorCode::Http).collect(), ..Default::default() };
        assert_eq!(many.violations(), ["errors.count: at most 32 codes"]);
    }
}
