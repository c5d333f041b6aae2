//! What a person types into a search box, as the text of a tsquery.
//!
//! As on the web: all words must be there, in any order; `"a phrase"` as it stands; `-word` and
//! `-"a phrase"` must not be there; `or` between two takes either side; `begin*` is any word that
//! begins so. Whatever else is typed is text: nothing is a syntax error.

use std::fmt::Write as _;

/// A beginning of fewer characters is a word: it would stand for too much of the whole index.
const MIN_PREFIX_CHARS: usize = 3;

/// The text to give to `to_tsquery`. Empty if there is nothing to search for.
#[must_use]
pub fn to_tsquery(typed: &str) -> String {
    let mut query = String::new();
    let mut either = false;
    let mut rest = typed;
    while let Some((term, after)) = next_term(rest) {
        rest = after;
        if term.is_or() {
            // Between two terms only: at either end, or doubled, it says nothing.
            either = !query.is_empty();
        } else if term.text.contains(char::is_alphanumeric) {
            if !query.is_empty() {
                query.push_str(if either { " | " } else { " & " });
            }
            either = false;
            term.write(&mut query);
        }
    }
    query
}

#[derive(Debug, PartialEq, Eq)]
struct Term<'a> {
    text: &'a str,
    excluded: bool,
    quoted: bool,
}

/// The first term of a text, and what comes after it.
fn next_term(text: &str) -> Option<(Term<'_>, &str)> {
    let text = text.trim_start();
    let (excluded, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    if let Some(phrase) = text.strip_prefix('"') {
        // A phrase that is not closed goes to the end.
        let (text, after) = phrase.split_once('"').unwrap_or((phrase, ""));
        return Some((Term { text, excluded, quoted: true }, after));
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    let nothing = word.is_empty() && !excluded;
    (!nothing).then_some((Term { text: word, excluded, quoted: false }, after))
}

impl Term<'_> {
    fn is_or(&self) -> bool {
        !self.quoted && !self.excluded && self.text.eq_ignore_ascii_case("or")
    }

    /// A quoted term of a tsquery: within the quotes everything is text but `'` and `\`.
    fn write(&self, query: &mut String) {
        let stem = self.text.strip_suffix('*').filter(|_| !self.quoted);
        let is_prefix = stem.is_some_and(|stem| stem.chars().count() >= MIN_PREFIX_CHARS);
        let text = stem.unwrap_or(self.text).replace('\\', "\\\\").replace('\'', "''");
        let (not, any) = (if self.excluded { "!" } else { "" }, if is_prefix { ":*" } else { "" });
        // Writing to a string cannot fail.
        let _ = write!(query, "{not}'{text}'{any}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_phrases_exclusions_and_beginnings_are_told_apart() {
        for (typed, query) in [
            ("", ""),
            ("  \n ", ""),
            ("sea", "'sea'"),
            ("the  deep sea", "'the' & 'deep' & 'sea'"),
            ("\"deep sea\" ship", "'deep sea' & 'ship'"),
            ("ship\"deep sea", "'ship' & 'deep sea'"),
            ("sea -ship -\"old boat\"", "'sea' & !'ship' & !'old boat'"),
            ("-sea", "!'sea'"),
            ("sea OR ship boat", "'sea' | 'ship' & 'boat'"),
            ("or sea or or ship or", "'sea' | 'ship'"),
            ("sea \"or\" ship -or", "'sea' & 'or' & 'ship' & !'or'"),
            ("nav* na* * -ship*", "'nav':* & 'na' & !'ship':*"),
            ("\"nav*\"", "'nav*'"),
            ("it's C:\\dir", "'it''s' & 'C:\\\\dir'"),
            ("a & b | !c <-> (d):A", "'a' & 'b' & '!c' & '(d):A'"),
            ("- -- \"\" !! ( ) ' -\"", ""),
            ("--sea", "!'-sea'"),
            ("日本語* 猫", "'日本語':* & '猫'"),
        ] {
            assert_eq!(to_tsquery(typed), query, "{typed:?}");
        }
    }
}
