//! JSON (RFC 8259) that knows where each value stands, so that a mistake can be shown in its place.
#![forbid(unsafe_code)]

use std::fmt;

use serde_core::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// A value and its place.
#[derive(Debug)]
pub struct JsonNode {
    /// Offset of its first byte in the text.
    pub at: usize,
    pub value: JsonValue,
}

/// The value itself.
#[derive(Debug)]
pub enum JsonValue {
    /// Names in the order of the text, each with its own place; one may be there twice.
    Object(Vec<(JsonName, JsonNode)>),
    Array(Vec<JsonNode>),
    Text(String),
    Bool(bool),
    Number(serde_json::Number),
    Null,
}

/// The name of a member of an object.
#[derive(Debug)]
pub struct JsonName {
    pub at: usize,
    pub text: String,
}

impl JsonValue {
    /// What it is, with an article.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::Array(_) => "a list",
            Self::Text(_) => "a text",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Null => "null",
        }
    }
}

/// A mistake of syntax.
#[derive(Debug)]
pub struct JsonMistake {
    /// Offset in the text.
    pub at: usize,
    pub what: String,
}

/// Deepest nesting of values.
const DEEPEST: usize = 64;

/// Parses `text`. No map is made: where the kernel gives no random numbers (a seccomp profile that refuses
/// getrandom(2)), the standard library's panics.
///
/// # Errors
///
/// The first mistake of syntax; also for values that are nested more than 64 deep.
pub fn parse(text: &str) -> Result<JsonNode, JsonMistake> {
    node(read(text, text)?, text, DEEPEST)
}

fn node(raw: &RawValue, text: &str, depth: usize) -> Result<JsonNode, JsonMistake> {
    let json = raw.get();
    let at = offset(json, text);
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(JsonMistake { at, what: format!("nested more than {DEEPEST} deep") });
    };
    let value = match json.as_bytes().first() {
        Some(b'{') => {
            let members: RawMembers<'_> = read(json, text)?;
            let members = members.0.into_iter().map(|(name, value)| {
                let (name, at) = (read(name.get(), text)?, offset(name.get(), text));
                Ok((JsonName { at, text: name }, node(value, text, deeper)?))
            });
            JsonValue::Object(members.collect::<Result<_, _>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(json, text)?;
            let items = items.into_iter().map(|item| node(item, text, deeper));
            JsonValue::Array(items.collect::<Result<_, _>>()?)
        }
        _ => match read(json, text)? {
            serde_json::Value::String(text) => JsonValue::Text(text),
            serde_json::Value::Bool(flag) => JsonValue::Bool(flag),
            serde_json::Value::Number(number) => JsonValue::Number(number),
            _ => JsonValue::Null,
        },
    };
    Ok(JsonNode { at, value })
}

/// Reads `json`, which is a part of `text`.
fn read<'a, T: serde_core::Deserialize<'a>>(json: &'a str, text: &str) -> Result<T, JsonMistake> {
    serde_json::from_str(json).map_err(|error| {
        let lines = json.split_inclusive('\n').take(error.line().saturating_sub(1));
        let within = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
        // Its text ends with the place in the part.
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default().to_owned();
        JsonMistake { at: offset(json, text) + within, what }
    })
}

/// Where `part` of `text` begins.
fn offset(part: &str, text: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// Line and column of the byte at `offset` of `text`, both from 1; columns are characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

struct RawMembers<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> serde_core::Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: serde_core::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn value(node: &JsonNode) -> Value {
        match &node.value {
            JsonValue::Object(members) => {
                members.iter().map(|(name, node)| (name.text.clone(), value(node))).collect()
            }
            JsonValue::Array(items) => items.iter().map(value).collect(),
            JsonValue::Text(text) => text.as_str().into(),
            JsonValue::Bool(flag) => (*flag).into(),
            JsonValue::Number(number) => number.clone().into(),
            JsonValue::Null => Value::Null,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..8)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_json_reads(json in json(), pretty: bool) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&json)?,
                false => json.to_string(),
            };
            let oracle: Value = serde_json::from_str(&text)?;
            let node = parse(&text).map_err(|mistake| TestCaseError::fail(mistake.what))?;
            prop_assert_eq!(value(&node), oracle);
        }

        #[test]
        fn what_is_refused_is_what_serde_json_refuses(
            json in json(),
            at: prop::sample::Index,
            new in "[\\[\\]{}\",:0-9a-z\\\\ \n\u{e9}]{0,3}",
        ) {
            let mut text: Vec<char> = json.to_string().chars().collect();
            let at = at.index(text.len());
            text.splice(at..(at + 1).min(text.len()), new.chars());
            let text: String = text.into_iter().collect();
            match (parse(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(node), Ok(oracle)) => prop_assert_eq!(value(&node), oracle),
                (Err(mistake), Err(_)) => prop_assert!(mistake.at <= text.len()),
                (own, oracle) => prop_assert!(false, "{text}: {own:?}, {oracle:?}"),
            }
        }
    }
}
