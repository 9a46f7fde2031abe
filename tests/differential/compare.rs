//! What differs between two boots, as named facts.

use std::collections::{BTreeMap, BTreeSet};

use crate::differential::observe::Observed;

/// A difference: what it is about, and both sides for the reader.
pub struct Difference {
    /// Such as `status`, `log - LINE`, `view NAME`, `tree PATH ATTRIBUTE`.
    pub key: String,
    /// Both sides.
    pub detail: String,
}

/// Everything that differs.
pub fn differences(reference: &Observed, program: &Observed) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |key: String, left: Option<&str>, right: Option<&str>| {
        if left != right {
            let detail = format!("reference {left:?}, program {right:?}");
            found.push(Difference { key, detail });
        }
    };
    let status = [reference.status, program.status].map(|status| status.to_string());
    add("status".into(), Some(&status[0]), Some(&status[1]));
    both(&reference.view, &program.view, |name, left, right| {
        add(format!("view {name}"), left.map(String::as_str), right.map(String::as_str));
    });
    both(&reference.tree, &program.tree, |path, left, right| match (left, right) {
        (Some(left), Some(right)) => both(left, right, |name, left, right| {
            let key = format!("tree {path} {name}");
            add(key, left.map(String::as_str), right.map(String::as_str));
        }),
        (left, right) => {
            let shown = [left, right].map(|side| side.map(|attributes| format!("{attributes:?}")));
            add(format!("tree {path}"), shown[0].as_deref(), shown[1].as_deref());
        }
    });
    log(&reference.log, &program.log, add);
    found
}

/// The reference's lines have to come in their order; between them more lines with a
/// `MOLECULE-` prefix may stand.
fn log(
    reference: &[String],
    program: &[String],
    mut add: impl FnMut(String, Option<&str>, Option<&str>),
) {
    let mut rest = program.iter();
    let mut extra = Vec::new();
    for line in reference {
        match rest.clone().position(|own| own == line) {
            Some(at) => {
                extra.extend(rest.by_ref().take(at));
                rest.next();
            }
            None => add(format!("log - {line}"), Some(line), None),
        }
    }
    extra.extend(rest);
    for line in extra.iter().filter(|line| !line.starts_with("MOLECULE-")) {
        add(format!("log + {line}"), None, Some(line));
    }
}

fn both<K: Ord, V>(
    left: &BTreeMap<K, V>,
    right: &BTreeMap<K, V>,
    mut each: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    for key in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
        each(key, left.get(key), right.get(key));
    }
}
