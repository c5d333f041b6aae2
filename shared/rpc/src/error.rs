//! What an error says on the wire: AIP-193 `ErrorInfo` always, `BadRequest` for input, `RetryInfo`
//! for what passes.

use std::{collections::HashMap, time::Duration};

use synap_proto::{field::Violation, reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "synap";

/// An error as the wire shows it. Every service's `error.rs` turns its own errors into this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The gRPC code.
    pub code: Code,
    /// One of [`synap_proto::reason`], or what a service that we call said.
    pub reason: String,
    /// For a person: what is wrong, and what to do.
    pub message: String,
    /// More for machines: ids, limits.
    pub metadata: HashMap<String, String>,
    /// Which fields are wrong.
    pub violations: Vec<Violation>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl RpcError {
    /// An error with a code, a reason of [`synap_proto::reason`], and a message for a person.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// Bad input: `INVALID_ARGUMENT` with the fields that are wrong.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let mut error = Self::new(Code::InvalidArgument, reason::INVALID_FIELD, text.join("; "));
        error.violations = violations;
        error
    }

    /// A fault of ours, or one that we do not know: the caller learns nothing, the log everything.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "unexpected error");
        Self::new(Code::Internal, reason::INTERNAL, "an internal error; the service's log has it")
    }

    /// Adds a fact for machines.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Reads what a service said. A status without details keeps its code and message.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            violations: details
                .bad_request()
                .map(|bad| {
                    bad.field_violations
                        .iter()
                        .map(|one| Violation::new(one.field.clone(), &one.description))
                        .collect()
                })
                .unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for RpcError {}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        let mut details = ErrorDetails::with_error_info(error.reason, DOMAIN, error.metadata);
        for violation in error.violations {
            details.add_bad_request_violation(violation.field, violation.description);
        }
        if error.retry_after.is_some() {
            details.set_retry_info(error.retry_after);
        }
        Self::with_error_details(error.code, error.message, details)
    }
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}

impl From<Violation> for RpcError {
    fn from(violation: Violation) -> Self {
        Self::invalid(vec![violation])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = RpcError {
            retry_after: Some(Duration::from_millis(1500)),
            ..RpcError::invalid(vec![Violation::new("tags[3]", "is too long")]).with("limit", "100")
        };
        let status = Status::from(error.clone());
        assert_eq!(RpcError::from_status(&status), error);
    }

    #[test]
    fn a_status_from_elsewhere_keeps_its_code() {
        let error = RpcError::from_status(&Status::new(Code::DataLoss, "gone"));
        assert_eq!((error.code, error.message.as_str()), (Code::DataLoss, "gone"));
    }
}
