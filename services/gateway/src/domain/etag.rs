//! Etags (AIP-154): the version of one entity of one user.

use synap_proto::field::{Checked, Violation};
use synap_types::Checksum;
use uuid::Uuid;

/// No entity comes this far: whoever expects it is told the version that there is.
const NEVER: i32 = i32::MAX;
/// Bytes of the mark that ties an etag to its entity and owner; two hexadecimal digits each.
const MARK_BYTES: usize = 6;

/// The etag of a version. It says of what it is one: another note's, or another user's, fits by no
/// accident.
pub(crate) fn etag(user: &str, id: Uuid, version: i32) -> String {
    let all = [id.as_bytes().as_slice(), &version.to_be_bytes(), user.as_bytes()].concat();
    let mark = Checksum::of(&all).as_bytes()[..MARK_BYTES]
        .iter()
        .fold(0_u64, |mark, byte| mark << 8 | u64::from(*byte));
    format!("\"{version}-{mark:012x}\"")
}

/// The version that the etag in a field expects; `None` where none was given.
pub(crate) fn check_etag(field: &str, text: &str, user: &str, id: Uuid) -> Checked<Option<i32>> {
    if text.is_empty() {
        return Ok(None);
    }
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let version = inner
        .and_then(|inner| inner.split_once('-'))
        .filter(|(_, mark)| mark.len() == 2 * MARK_BYTES)
        .and_then(|(version, _)| version.parse().ok())
        .filter(|version| *version > 0)
        .ok_or_else(|| Violation::new(field, "is none of ours; take it from what was read"))?;
    Ok(Some(if etag(user, id, version) == text { version } else { NEVER }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_a_version_of_one_entity_of_one_user() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ours = etag("ada", one, 7);
        assert_eq!(check_etag("etag", "", "ada", one), Ok(None));
        assert_eq!(check_etag("etag", &ours, "ada", one), Ok(Some(7)));
        for foreign in [etag("eve", one, 7), etag("ada", other, 7), ours.replace('7', "8")] {
            assert_eq!(check_etag("etag", &foreign, "ada", one), Ok(Some(NEVER)), "{foreign}");
        }
        for bad in
            ["7", "\"", "\"\"", "\"7\"", "\"0-000000000000\"", "\"-1\"", "W/\"1\"", "\"7-00\""]
        {
            assert_eq!(check_etag("note.etag", bad, "ada", one).unwrap_err().field, "note.etag");
        }
    }
}
