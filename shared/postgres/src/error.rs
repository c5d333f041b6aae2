//! What an error of sqlx means to a caller: may it try again, and which rule of the schema spoke.

use sqlx::Error;

/// Whether the same work, tried again from its beginning, may succeed without anyone's help.
///
/// True for a lost or refused connection, an exhausted pool, a server that is starting, stopping
/// or full, a deadlock and a serialization failure. False for everything that says something about
/// the statement or the data, and for a cancelled statement, whose deadline is the caller's to
/// judge.
///
/// A connection lost during COMMIT leaves the outcome unknown: only repeat idempotent work.
#[must_use]
pub fn is_transient(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::WorkerCrashed => true,
        Error::Database(error) => error.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

/// The constraint that refused a statement, such as `entities_pkey`, if it was one that did.
///
/// Map these names to the errors of a domain instead of reading messages: messages are translated.
#[must_use]
pub fn constraint_name(error: &Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

fn is_transient_code(code: &str) -> bool {
    // Class 08 is "connection exception" as a whole.
    code.starts_with("08")
        || matches!(
            code,
            "40001" // serialization_failure
                | "40P01" // deadlock_detected
                | "53300" // too_many_connections
                | "55P03" // lock_not_available
                | "57P01" // admin_shutdown
                | "57P02" // crash_shutdown
                | "57P03" // cannot_connect_now
                | "57P05" // idle_session_timeout
                | "25P03" // idle_in_transaction_session_timeout
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_try_may_cure_is_transient() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(is_transient(&Error::Io(reset)));
        assert!(is_transient(&Error::PoolTimedOut));
        assert!(!is_transient(&Error::RowNotFound));
        // The pool is closed because this process is ending.
        assert!(!is_transient(&Error::PoolClosed));
        for code in ["08006", "40001", "40P01", "57P01", "57P03"] {
            assert!(is_transient_code(code), "{code}");
        }
        // Unique violation, undefined table, query cancelled, disk full.
        for code in ["23505", "42P01", "57014", "53100"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }
}
