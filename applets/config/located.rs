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
