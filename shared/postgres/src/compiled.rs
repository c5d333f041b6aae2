//! What sqlx has macros for, without them: those build sqlx, tokio and rustls a second time, for
//! the compiler.

use std::borrow::Cow;

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Reads rows into a struct whose fields are named as the columns are:
/// `from_row!(Row { id, version });`
#[macro_export]
macro_rules! from_row {
    ($row:ident { $($column:ident),+ $(,)? }) => {
        impl ::sqlx::FromRow<'_, ::sqlx::postgres::PgRow> for $row {
            fn from_row(row: &::sqlx::postgres::PgRow) -> ::sqlx::Result<Self> {
                Ok(Self { $($column: ::sqlx::Row::try_get(row, stringify!($column))?),+ })
            }
        }
    };
}

/// Compiles migrations in: `migrator!("../migrations": "0001_first.sql", "0002_second.sql")`, the
/// folder as seen from the source file. A test has to compare them with the folder: a file that is
/// not listed is not there.
#[macro_export]
macro_rules! migrator {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        $crate::migrator(&[$(($file, include_str!(concat!($folder, "/", $file)))),+])
    };
}

/// Migrations by name and text of their files, as sqlx would read them from a folder: it has their
/// checksums in every database.
///
/// # Panics
/// If a name is not `<number>_<description>.sql`.
#[must_use]
pub fn migrator(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(name, text): &(&'static str, &'static str)| {
        let parts = name.strip_suffix(".sql").and_then(|name| name.split_once('_'));
        let parts = parts.and_then(|(number, rest)| Some((number.parse().ok()?, rest)));
        let Some((version, description)) = parts else { panic!("not a migration: {name}") };
        Migration::new(
            version,
            Cow::Owned(description.replace('_', " ")),
            MigrationType::Simple,
            (*text).into_sql_str(),
            text.starts_with("-- no-transaction"),
        )
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}
