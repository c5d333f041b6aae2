//! `Range` (RFC 9110): the one range that a request may ask for.

use std::ops::Range;

/// What a `Range` header comes down to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The whole blob: there is no range, or none that we serve, such as several at once.
    Whole,
    /// These bytes: at least one.
    Part(Range<u64>),
    /// None of the blob's bytes.
    Nothing,
}

/// Reads a `Range` header, for a blob of `size` bytes.
pub(super) fn read(header: Option<&str>, size: u64) -> Asked {
    let spec = header.and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.trim().split_once('-')) else {
        return Asked::Whole;
    };
    let range = match (number(first), number(last)) {
        (Number::Given(first), Number::Given(last)) if first <= last => {
            first..last.saturating_add(1).min(size)
        }
        (Number::Given(first), Number::Missing) => first..size,
        (Number::Missing, Number::Given(last)) => size.saturating_sub(last)..size,
        _ => return Asked::Whole,
    };
    if range.is_empty() { Asked::Nothing } else { Asked::Part(range) }
}

enum Number {
    Given(u64),
    Missing,
    Bad,
}

fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::Missing,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            // More than any blob has is past the end of this one.
            Number::Given(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Number::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_what_is_no_range_is_ignored() {
        for (header, asked) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=3-", Asked::Part(3..10)),
            ("bytes=3-99", Asked::Part(3..10)),
            ("bytes=-4", Asked::Part(6..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-12", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(read(Some(header), 10), asked, "{header:?}");
        }
        assert_eq!(read(None, 10), Asked::Whole);
        assert_eq!(read(Some("bytes=0-"), 0), Asked::Nothing);
    }
}
