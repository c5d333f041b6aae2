//! How much one call looks at.

use synap_proto::entity::{CheckLevel, FileToCheck};

/// Objects of one call that asks for them.
const HEADS: usize = 100;
/// Objects of one call that reads them, and their bytes: a call that breaks off begins anew.
const DIGESTS: usize = 32;
const DIGEST_BYTES: i64 = 256 * 1024 * 1024;

/// Cuts files into portions that one call looks at.
pub(crate) fn portions(files: Vec<FileToCheck>, level: CheckLevel) -> Vec<Vec<FileToCheck>> {
    let reads = level == CheckLevel::Checksum;
    let most = if reads { DIGESTS } else { HEADS };
    let (mut portions, mut bytes) = (Vec::<Vec<_>>::new(), 0_i64);
    for file in files {
        let size = file.size.unwrap_or_default();
        bytes = bytes.saturating_add(size);
        match portions.last_mut() {
            Some(last) if last.len() < most && (!reads || bytes <= DIGEST_BYTES) => last.push(file),
            _ => {
                bytes = size;
                portions.push(vec![file]);
            }
        }
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: Option<i64>) -> FileToCheck {
        FileToCheck { size, ..FileToCheck::default() }
    }

    #[test]
    fn a_portion_is_bounded_by_number_and_by_bytes() {
        let lengths = |files: Vec<FileToCheck>, level| {
            portions(files, level).iter().map(Vec::len).collect::<Vec<_>>()
        };
        let small: Vec<_> = (0..70).map(|_| file(Some(10))).collect();
        assert_eq!(lengths(small.clone(), CheckLevel::Checksum), [32, 32, 6]);
        assert_eq!(lengths(small, CheckLevel::Head), [70]);
        let large = [Some(1), Some(DIGEST_BYTES), None, Some(1), Some(i64::MAX), Some(i64::MAX)];
        let large: Vec<_> = large.into_iter().map(file).collect();
        assert_eq!(lengths(large, CheckLevel::Checksum), [1, 2, 1, 1, 1]);
        assert!(portions(Vec::new(), CheckLevel::Head).is_empty());
    }
}
