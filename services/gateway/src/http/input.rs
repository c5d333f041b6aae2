//! What a procedure is called with: tRPC's canonical `?input=<json>` or body, and for people who
//! type URLs the same fields as parameters of their own.

use prost_types::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use synap_proto::field::{self, Checked, Violation};

use crate::error::Error;

/// How a parameter of a URL is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    Number,
    /// May be given several times.
    List,
}

/// The input of a query.
pub(super) fn from_query<T: DeserializeOwned>(
    query: Option<&str>,
    parameters: &[(&str, Kind)],
) -> Result<T, Error> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name == "input" {
            return from_json("input", value.as_bytes());
        }
        let Some((_, kind)) = parameters.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let value = match kind {
            Kind::Text => value.into_owned().into(),
            Kind::Flag => (value == "true").into(),
            Kind::Number => value
                .parse::<i32>()
                .map_err(|_| Violation::new(name.as_ref(), "must be a whole number"))?
                .into(),
            Kind::List => match fields.get_mut(name.as_ref()) {
                Some(Value::Array(list)) => {
                    list.push(value.into_owned().into());
                    continue;
                }
                _ => vec![value.into_owned()].into(),
            },
        };
        fields.insert(name.into_owned(), value);
    }
    serde_json::from_value(Value::Object(fields)).map_err(|why| unexpected("input", &why))
}

/// The inputs of a batch of queries.
pub(super) fn from_query_json(query: Option<&str>) -> Result<Map<String, Value>, Violation> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let Some((_, inputs)) = pairs.find(|(name, _)| name == "input") else {
        return Ok(Map::new());
    };
    serde_json::from_str(&inputs)
        .map_err(|why| Violation::new("input", format!("is not an object of inputs: {why}")))
}

/// The input of a mutation; the only one of its batch, where it comes in one.
pub(super) fn from_body<'a, T: Deserialize<'a>>(
    is_batch: bool,
    body: &'a [u8],
) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct OnlyOne<T> {
        #[serde(rename = "0")]
        input: T,
    }
    if is_batch {
        return Ok(from_json::<OnlyOne<T>>("body", body)?.input);
    }
    from_json("body", body)
}

/// JSON that must be an object.
fn from_json<'a, T: Deserialize<'a>>(name: &str, text: &'a [u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|why| Violation::new(name, format!("is not valid UTF-8: {why}")))?;
    // serde would take a list of values for a struct, too.
    if !text.trim_start().starts_with('{') {
        return Err(Violation::new(name, "must be a JSON object").into());
    }
    serde_json::from_str(text).map_err(|why| unexpected(name, &why))
}

fn unexpected(name: &str, why: &serde_json::Error) -> Error {
    Violation::new(name, format!("is not the JSON that is expected: {why}")).into()
}

/// A time in RFC 3339, or nothing.
pub(super) fn time(name: &str, text: &str) -> Checked<Option<Timestamp>> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| {
        Violation::new(name, "must be a time in RFC 3339, like 2026-01-31T08:30:00Z")
    })?;
    Ok(Some(field::timestamp(time.to_utc())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Input {
        query: String,
        page_size: i32,
        show_deleted: bool,
        tags: Vec<String>,
    }

    const PARAMETERS: [(&str, Kind); 4] = [
        ("query", Kind::Text),
        ("pageSize", Kind::Number),
        ("showDeleted", Kind::Flag),
        ("tags", Kind::List),
    ];

    fn read(query: &str) -> Result<Input, Error> {
        from_query(Some(query), &PARAMETERS)
    }

    #[test]
    fn both_forms_of_a_query_say_the_same() {
        let expected = Input {
            query: "a b&c".into(),
            page_size: 7,
            show_deleted: true,
            tags: vec!["x".into(), "y z".into()],
        };
        let canonical = "input=%7B%22query%22%3A%22a%20b%26c%22%2C%22pageSize%22%3A7%2C\
                         %22showDeleted%22%3Atrue%2C%22tags%22%3A%5B%22x%22%2C%22y%20z%22%5D%7D";
        assert_eq!(read(canonical).unwrap(), expected);
        let plain = "query=a+b%26c&pageSize=7&showDeleted=true&tags=x&tags=y+z&other=1";
        assert_eq!(read(plain).unwrap(), expected);
        assert_eq!(read("").unwrap(), Input::default());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (query, field) in
            [("pageSize=many", "pageSize"), ("input=%5B%5D", "input"), ("input=%7B", "input")]
        {
            let Err(Error::Invalid(violation)) = read(query) else { panic!("{query} was read") };
            assert_eq!(violation.field, field);
        }
        assert!(time("createdFrom", "yesterday").is_err());
        assert_eq!(time("createdFrom", "1970-01-01T01:00:01+01:00").unwrap().unwrap().seconds, 1);
    }
}
