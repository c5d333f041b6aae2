//! `Content-Disposition`: the name under which a browser saves a blob.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What RFC 5987 lets stand for itself (`attr-char`), beside letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Asks the browser to save the blob under a name (RFC 6266). A name that is not plain is written
/// twice: as near as ASCII gets, for what is old, and exactly (RFC 5987).
pub(crate) fn attachment(file_name: &str) -> String {
    // A name is no path.
    let name = file_name.replace(['/', '\\'], "_");
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let exact = utf8_percent_encode(&name, ENCODED);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// Whether all browsers read the character in quotes alike. Some take `%41` for `A`.
fn is_plain(c: char) -> bool {
    (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_and_cannot_get_out_of_its_quotes() {
        for (name, value) in [
            ("report 1.pdf", r#"attachment; filename="report 1.pdf""#),
            ("a/../b.md", r#"attachment; filename="a_.._b.md""#),
            ("Grüße.md", r#"attachment; filename="Gr__e.md"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.md"#),
            (
                r#"x"; filename=y"#,
                r#"attachment; filename="x_; filename=y"; filename*=UTF-8''x%22%3B%20filename%3Dy"#,
            ),
            ("100%41.md", r#"attachment; filename="100_41.md"; filename*=UTF-8''100%2541.md"#),
        ] {
            assert_eq!(attachment(name), value);
        }
    }
}
