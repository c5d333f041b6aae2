//! Migrations that are compiled in, and their files.

use std::path::Path;

use sqlx::migrate::Migrator;

/// Each file of the folder is compiled in as sqlx reads it: with the same number, description and
/// checksum, in or out of a transaction.
///
/// # Panics
/// If one is not, or the folder cannot be read.
pub async fn assert_compiled_in(migrator: &Migrator, folder: &str) {
    let files = Migrator::new(Path::new(folder)).await;
    let files = files.unwrap_or_else(|error| panic!("{folder}: {error}"));
    assert_eq!(what_counts(migrator), what_counts(&files));
}

fn what_counts(migrator: &Migrator) -> Vec<(i64, &str, &[u8], bool)> {
    migrator.iter().map(|it| (it.version, &*it.description, &*it.checksum, it.no_tx)).collect()
}
