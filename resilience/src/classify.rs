//! What counts as a failure.

use std::convert::Infallible;

pub use fusebox_policy::policy::ErrorCode;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The callee's or the network's: counts towards opening the breaker, and a fallback runs.
    Failure,
    /// The caller's, like a name that does not exist: counts neither way, and no fallback runs.
    Client,
}

/// An error that knows its [`Class`].
///
/// There is no blanket implementation: an error of yours implements this, or the call gives a
/// closure to [`Command::call_classified`](crate::Command::call_classified).
pub trait Classify {
    /// Whose fault it is.
    fn class(&self) -> Class;

    /// What the lists of a policy call it, if it is one of the codes they know: those come first.
    fn code(&self) -> Option<ErrorCode> {
        None
    }
}

impl Classify for Infallible {
    fn class(&self) -> Class {
        match *self {}
    }
}

/// Always a failure.
impl Classify for std::io::Error {
    fn class(&self) -> Class {
        Class::Failure
    }
}

/// Decides the class of the errors of one call.
pub trait Classifier<E> {
    /// Whose fault it is.
    fn class(&self, error: &E) -> Class;

    /// What the lists of a policy call it.
    fn code(&self, _error: &E) -> Option<ErrorCode> {
        None
    }
}

/// Asks the error itself, by [`Classify`].
#[derive(Clone, Copy, Debug)]
pub struct ByError;

impl<E: Classify> Classifier<E> for ByError {
    fn class(&self, error: &E) -> Class {
        error.class()
    }

    fn code(&self, error: &E) -> Option<ErrorCode> {
        error.code()
    }
}

impl<E, F: Fn(&E) -> Class> Classifier<E> for F {
    fn class(&self, error: &E) -> Class {
        self(error)
    }
}

/// A gRPC code in the eyes of a breaker: 0 is no error.
pub(crate) const fn grpc_code(code: u32) -> Option<Class> {
    match code {
        0 => None,
        // Cancelled, InvalidArgument, NotFound, AlreadyExists, PermissionDenied, FailedPrecondition,
        // OutOfRange, Unauthenticated.
        1 | 3 | 5 | 6 | 7 | 9 | 11 | 16 => Some(Class::Client),
        _ => Some(Class::Failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// design.md §5: client errors count neither way.
    #[test]
    fn grpc_codes_of_a_client_are_no_failures() {
        let clients = (0..=16).filter(|code| grpc_code(*code) == Some(Class::Client)).collect::<Vec<_>>();
        assert_eq!(clients, [1, 3, 5, 6, 7, 9, 11, 16]);
        assert_eq!(grpc_code(0), None);
        assert!(
            [2, 4, 8, 10, 12, 13, 14, 15, 99].iter().all(|code| grpc_code(*code) == Some(Class::Failure))
        );
    }
}
