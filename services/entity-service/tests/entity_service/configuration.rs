//! What the service can be told, and what it refuses to be told.

use crate::support::{config, try_config};

const URL: &str = "postgres://synap:s3cret@localhost/synap";

#[test]
fn a_bad_value_is_refused_by_name() {
    for flag in [
        "--operation-lease-secs",
        "--event-lease-secs",
        "--blob-settle-secs",
        "--operation-retention-days",
        "--database-connections",
        "--group-commit-workers",
    ] {
        for value in ["", "x", "-1", "0", "NaN", "inf", "1e300"] {
            let error = try_config(URL, &[&format!("{flag}={value}")]).unwrap_err().to_string();
            assert!(error.contains(flag), "{flag}={value}: {error}");
        }
        try_config(URL, &[flag, "3"]).unwrap();
    }
}

#[test]
fn the_password_is_never_shown() {
    let shown = format!("{:?}", config(URL, &[]));
    assert!(!shown.contains("s3cret") && shown.contains("synap"), "{shown}");
}
