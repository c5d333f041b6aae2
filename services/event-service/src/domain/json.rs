//! JSON objects that PostgreSQL's `jsonb` can hold.

use serde_json::{Number, Value};
use synap_types::{Checksum, Hasher};

/// The text of a JSON object, as it came, and a digest of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonObject {
    text: String,
    digest: Checksum,
}

/// Why a text is not a [`JsonObject`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidJson {
    #[error("must be {limit} bytes at most, has {size}")]
    TooLarge { size: usize, limit: usize },
    #[error("must be JSON: {0}")]
    Syntax(String),
    #[error("must be a JSON object, like {{\"title\": \"…\"}}")]
    NotAnObject,
    #[error("must not contain \\u0000, which the database cannot hold")]
    Nul,
}

impl JsonObject {
    /// Checks a text of at most `limit` bytes; an empty one is `{}`.
    pub(crate) fn parse(text: String, limit: usize) -> Result<Self, InvalidJson> {
        let text = if text.is_empty() { "{}".to_owned() } else { text };
        if text.len() > limit {
            return Err(InvalidJson::TooLarge { size: text.len(), limit });
        }
        let value: Value =
            serde_json::from_str(&text).map_err(|why| InvalidJson::Syntax(why.to_string()))?;
        if !value.is_object() {
            return Err(InvalidJson::NotAnObject);
        }
        // JSON cannot hold a bare NUL, so only an escaped one can be there. Not every such text is
        // one: in "\\u0000" the backslash is what is escaped.
        if text.contains("\\u0000") && has_nul(&value) {
            return Err(InvalidJson::Nul);
        }
        let mut hasher = Hasher::default();
        digest(&value, &mut hasher);
        Ok(Self { text, digest: hasher.finish() })
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The same for two texts of the same value: a caller who kept its event in a `jsonb` column
    /// repeats it with other spaces and another order of keys.
    pub(crate) fn digest(&self) -> &Checksum {
        &self.digest
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Every value begins with its kind and, where it has one, its length: no two values feed the same
/// bytes.
fn digest(value: &Value, into: &mut Hasher) {
    let begin = |into: &mut Hasher, kind: u8, length: usize| {
        into.update(&[kind]);
        into.update(&(length as u64).to_be_bytes());
    };
    match value {
        Value::Null => into.update(b"n"),
        Value::Bool(false) => into.update(b"f"),
        Value::Bool(true) => into.update(b"t"),
        Value::Number(number) => {
            let text = number_text(number);
            begin(into, b'#', text.len());
            into.update(text.as_bytes());
        }
        Value::String(text) => {
            begin(into, b'"', text.len());
            into.update(text.as_bytes());
        }
        Value::Array(items) => {
            begin(into, b'[', items.len());
            for item in items {
                digest(item, into);
            }
        }
        Value::Object(fields) => {
            begin(into, b'{', fields.len());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                begin(into, b'"', name.len());
                into.update(name.as_bytes());
                digest(value, into);
            }
        }
    }
}

/// `100`, `1e2` and `100.0` are one number, and `jsonb` does not keep them apart everywhere.
fn number_text(number: &Number) -> String {
    /// Beyond it, not every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<JsonObject, InvalidJson> {
        JsonObject::parse(text.to_owned(), 64)
    }

    #[test]
    fn what_jsonb_would_refuse_is_refused_here() {
        for nul in [r#"{"a":"\u0000"}"#, r#"{"a":[{"b":"x\u0000"}]}"#, r#"{"\u0000":1}"#] {
            assert_eq!(parse(nul), Err(InvalidJson::Nul), "{nul}");
        }
        assert!(parse(r#"{"a":"\\u0000"}"#).is_ok());
        for bad in ["{", "{}{}", "{\"a\":\"\\ud800\"}", "{\"a\":1e999999}", "nonsense", " "] {
            assert!(matches!(parse(bad), Err(InvalidJson::Syntax(_))), "{bad}");
        }
        for other in ["[]", "null", "1", "\"{}\""] {
            assert_eq!(parse(other), Err(InvalidJson::NotAnObject), "{other}");
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(57));
        assert_eq!(parse(&long), Err(InvalidJson::TooLarge { size: 65, limit: 64 }));
    }

    #[test]
    fn nothing_is_an_empty_object() {
        assert_eq!(parse("").unwrap().as_str(), "{}");
    }

    #[test]
    fn the_digest_is_of_the_value_not_of_its_spelling() {
        let digest = |text| *parse(text).unwrap().digest();
        assert_eq!(
            digest(r#"{"a":1,"b":[true,"x"]}"#),
            digest(r#" {"b": [true, "\u0078"], "a":1}"#)
        );
        assert_eq!(digest(r#"{"a":100}"#), digest(r#"{"a":1.0e2}"#));
        let different =
            [r#"{"a":1}"#, r#"{"a":"1"}"#, r#"{"a":[1]}"#, r#"{"a":{}}"#, r#"{"a":[]}"#, "{}"];
        for (i, one) in different.iter().enumerate() {
            for other in &different[i + 1..] {
                assert_ne!(digest(one), digest(other), "{one} {other}");
            }
        }
    }
}
