//! Versions of PostgreSQL and of pgvector: which are good enough, and how they are written.

use std::fmt;

/// The oldest PostgreSQL that works with the schema (`NULLS NOT DISTINCT`, `CREATE DATABASE …
/// STRATEGY`, public schema closed to everyone).
pub(crate) const OLDEST_MAJOR: u32 = 15;

/// The newest PostgreSQL that we start ourselves. A configured database may be newer.
pub(crate) const NEWEST_MAJOR: u32 = 18;

/// The first pgvector without index corruption on vacuum and without the overflow in index builds.
pub(crate) const GOOD_VECTOR: VectorVersion = VectorVersion(0, 8, 4);

/// A version of the `vector` extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VectorVersion(u32, u32, u32);

impl VectorVersion {
    /// Reads `0.8.5`, and `0.8` as `0.8.0`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().map_or(Ok(0), str::parse).ok()?;
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for VectorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The number in `PostgreSQL 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 18.4` and
/// `18.4`: the first word that starts with a digit.
pub(crate) fn server_version(text: &str) -> Option<String> {
    text.split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

/// The major version of `18.4`, and of development versions such as `19beta1`.
pub(crate) fn major(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgresql_and_pgvector_write_them() {
        let debian = server_version("PostgreSQL 15.18 (Debian 15.18-0+deb12u1)").unwrap();
        assert_eq!((debian.as_str(), major(&debian)), ("15.18", Some(15)));
        assert_eq!(server_version("postgres (PostgreSQL) 18.4\n").as_deref(), Some("18.4"));
        assert_eq!(major("19beta1"), Some(19));
        assert_eq!(major("devel"), None);
        assert_eq!(VectorVersion::parse("0.8"), Some(VectorVersion(0, 8, 0)));
        assert_eq!(VectorVersion::parse("0.8.x"), None);
    }

    #[test]
    fn pgvector_versions_are_ordered_by_number_not_by_text() {
        let parse = |text| VectorVersion::parse(text).unwrap();
        assert!(parse("0.8.3") < GOOD_VECTOR);
        assert!(parse("0.8.10") > GOOD_VECTOR);
        assert!(parse("0.10.0") > GOOD_VECTOR);
    }
}
