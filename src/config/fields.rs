//! Reading the members of objects: what is unknown, twice or of another type is a mistake with its place, and
//! the rest is read all the same.
#![forbid(unsafe_code)]

use crate::error::escape;

use super::located::{JsonNode, JsonValue, position};

/// Mistakes that are kept of one file.
const MOST_MISTAKES: usize = 20;

/// Collects the mistakes in `text`.
pub struct FieldReader<'a> {
    text: &'a str,
    /// Line, column, what is wrong.
    pub mistakes: Vec<(usize, usize, String)>,
}

impl<'a> FieldReader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, mistakes: Vec::new() }
    }

    /// Notes that `what` is wrong at byte `at`.
    pub fn mistake(&mut self, at: usize, what: impl Into<String>) {
        if self.mistakes.len() < MOST_MISTAKES {
            let (line, column) = position(self.text, at);
            self.mistakes.push((line, column, what.into()));
        }
    }

    pub fn line(&self, node: &JsonNode) -> usize {
        position(self.text, node.at).0
    }

    fn wrong_type(&mut self, node: &JsonNode, name: &str, wanted: &str) {
        self.mistake(node.at, format!("{name} is {}; {wanted} is needed", node.value.noun()));
    }

    /// The members of the object `node`, in the order of `known`.
    pub fn members<'n, const N: usize>(
        &mut self,
        node: &'n JsonNode,
        name: &str,
        known: [&str; N],
    ) -> [Option<&'n JsonNode>; N] {
        let mut found = [None; N];
        let JsonValue::Object(members) = &node.value else {
            self.wrong_type(node, name, "an object");
            return found;
        };
        for (key, value) in members {
            match known.iter().position(|known| *known == key.text) {
                Some(index) if found[index].is_some() => {
                    self.mistake(key.at, format!("\"{}\" is there twice", key.text));
                }
                Some(index) => found[index] = Some(value),
                None => self.unknown(key.at, "key", &key.text, &known),
            }
        }
        found
    }

    fn unknown(&mut self, at: usize, kind: &str, typed: &str, known: &[&str]) {
        let nearest = known
            .iter()
            .map(|known| (strsim::jaro(known, typed), *known))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        let hint = match nearest {
            Some((similarity, known)) if similarity > 0.7 => format!("did you mean \"{known}\"?"),
            _ => format!("known are {}", known.join(", ")),
        };
        self.mistake(at, format!("unknown {kind} \"{}\"; {hint}", escape(typed)));
    }

    /// A text without NUL bytes, which no path, name or argument can have.
    pub fn text(&mut self, node: &JsonNode, name: &str) -> Option<String> {
        match &node.value {
            JsonValue::Text(text) if text.contains('\0') => {
                self.mistake(node.at, format!("{name} has a NUL byte"));
                None
            }
            JsonValue::Text(text) => Some(text.clone()),
            _ => {
                self.wrong_type(node, name, "a text");
                None
            }
        }
    }

    /// The same; an empty one is a mistake.
    pub fn word(&mut self, node: &JsonNode, name: &str) -> Option<String> {
        let text = self.text(node, name)?;
        if text.is_empty() {
            self.mistake(node.at, format!("{name} is empty"));
        }
        Some(text).filter(|text| !text.is_empty())
    }

    pub fn flag(&mut self, node: &JsonNode, name: &str) -> Option<bool> {
        match node.value {
            JsonValue::Bool(flag) => Some(flag),
            _ => {
                self.wrong_type(node, name, "true or false");
                None
            }
        }
    }

    /// A whole number from 1 to `most`.
    pub fn number(&mut self, node: &JsonNode, name: &str, most: u64) -> Option<u64> {
        let number = match &node.value {
            JsonValue::Number(number) => {
                number.as_u64().filter(|number| (1..=most).contains(number))
            }
            _ => None,
        };
        if number.is_none() {
            self.mistake(node.at, format!("{name} has to be a whole number from 1 to {most}"));
        }
        number
    }

    /// Permission bits as a text of octal digits, as chmod(1) takes them.
    pub fn mode(&mut self, node: &JsonNode, name: &str) -> Option<u32> {
        let mode = match &node.value {
            JsonValue::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
            }
            _ => None,
        };
        if mode.is_none() {
            self.mistake(
                node.at,
                format!("{name} has to be octal digits as a text, like \"0700\""),
            );
        }
        mode
    }

    /// One of `words`: its value.
    pub fn choice<T: Copy>(
        &mut self,
        node: &JsonNode,
        name: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(node, name)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.unknown(node.at, name, &text, &known);
        }
        found.map(|(_, value)| *value)
    }

    /// A list, each item read by `read`; an item with a mistake is left out.
    pub fn list<T>(
        &mut self,
        node: &JsonNode,
        name: &str,
        mut read: impl FnMut(&mut Self, &JsonNode) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &node.value {
            JsonValue::Array(items) => {
                Some(items.iter().filter_map(|item| read(self, item)).collect())
            }
            _ => {
                self.wrong_type(node, name, "a list");
                None
            }
        }
    }

    /// The member that an object at `at` must have.
    pub fn needed<'n>(
        &mut self,
        member: Option<&'n JsonNode>,
        at: &JsonNode,
        name: &str,
    ) -> Option<&'n JsonNode> {
        if member.is_none() && matches!(at.value, JsonValue::Object(_)) {
            self.mistake(at.at, format!("\"{name}\" is missing here"));
        }
        member
    }
}
