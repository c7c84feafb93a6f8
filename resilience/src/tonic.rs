//! [`tonic::Status`] as an error of commands and as their answer.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::classify::{Class, Classify, ErrorCode, grpc_code};
use crate::command::CommandError;

/// Client errors are `CANCELLED`, `INVALID_ARGUMENT`, `NOT_FOUND`, `ALREADY_EXISTS`,
/// `PERMISSION_DENIED`, `FAILED_PRECONDITION`, `OUT_OF_RANGE` and `UNAUTHENTICATED`.
impl Classify for Status {
    fn class(&self) -> Class {
        // A status with code OK is no answer: whoever returns it as an error has failed.
        grpc_code(self.code() as u32).unwrap_or(Class::Failure)
    }

    fn code(&self) -> Option<ErrorCode> {
        u8::try_from(self.code() as u32).ok().filter(|code| *code != 0).map(ErrorCode::Grpc)
    }
}

/// `DEADLINE_EXCEEDED`, `UNAVAILABLE` or `RESOURCE_EXHAUSTED` with metadata `fusebox-reason`, and for
/// an open breaker or a rate `retry-after` in whole seconds; the status of a call that failed by itself stays
/// as it is.
impl From<CommandError<Self>> for Status {
    fn from(error: CommandError<Self>) -> Self {
        let code = match &error {
            CommandError::Open { .. } => Code::Unavailable,
            CommandError::Rejected | CommandError::RateLimited { .. } => Code::ResourceExhausted,
            CommandError::Timeout(_) => Code::DeadlineExceeded,
            CommandError::Failed(_) => Code::Unknown,
        };
        let (reason, message) = (error.reason(), error.to_string());
        let retry_after = error.retry_after_seconds();
        if let CommandError::Failed(status) = error {
            return status;
        }
        let mut status = Self::new(code, message);
        if let Some(reason) = reason {
            status.metadata_mut().insert("fusebox-reason", MetadataValue::from_static(reason));
        }
        if let Some(seconds) = retry_after {
            status.metadata_mut().insert("retry-after", MetadataValue::from(seconds));
        }
        status
    }
}
