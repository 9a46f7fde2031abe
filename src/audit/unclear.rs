//! The three answers of a look: there, not there, cannot tell.
#![forbid(unsafe_code)]

use std::fmt;

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::error::{Error, describe};

/// The fact, or nothing because it is not there.
pub type FactLook<T> = Result<Option<T>, UnclearFact>;

/// Why something could not be found out; shown as `?(Input/output error)`, which no fact looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnclearFact(String);

impl UnclearFact {
    /// The kernel's words, on one line.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl From<Errno> for UnclearFact {
    fn from(errno: Errno) -> Self {
        Self(describe(errno))
    }
}

impl From<&Error> for UnclearFact {
    fn from(error: &Error) -> Self {
        Self(error.reason())
    }
}

impl fmt::Display for UnclearFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "?({})", self.0)
    }
}

/// The text for a look, with `missing` for what is not there.
pub(super) fn text<T>(look: &FactLook<T>, missing: &str, text: impl Fn(&T) -> String) -> String {
    match look {
        Ok(Some(found)) => text(found),
        Ok(None) => missing.to_owned(),
        Err(unclear) => unclear.to_string(),
    }
}

/// The value for a look: null for what is not there, an object with `error` for "cannot tell".
pub(super) fn json<T>(look: &FactLook<T>, value: impl Fn(&T) -> Value) -> Value {
    match look {
        Ok(Some(found)) => value(found),
        Ok(None) => Value::Null,
        Err(unclear) => json!({ "error": unclear.reason() }),
    }
}
