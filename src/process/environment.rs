//! Environments as lists of `NAME=VALUE` (environ(7)).
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The value of the first entry `name=` of `environment`.
pub fn lookup<'a>(environment: &'a [CString], name: &str) -> Option<&'a OsStr> {
    environment.iter().find_map(|entry| {
        let value = entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value))
    })
}

/// The value of the variable `name` as a setting of ours: set but empty counts as unset.
pub fn setting<'a>(environment: &'a [CString], name: &str) -> Option<&'a OsStr> {
    lookup(environment, name).filter(|value| !value.is_empty())
}

/// Sets `name` to `value`: the first entry of that name is replaced in place, others are dropped,
/// and without one it is added at the end.
pub fn set(environment: &mut Vec<CString>, name: &str, value: &OsStr) {
    let mut entry = OsString::from(format!("{name}="));
    entry.push(value);
    let Ok(entry) = CString::new(entry.into_vec()) else { return };
    let is_name = |entry: &CString| {
        entry
            .to_bytes()
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b'='))
    };
    let place = environment.iter().position(is_name);
    environment.retain(|entry| !is_name(entry));
    match place {
        Some(place) => environment.insert(place, entry),
        None => environment.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn set_replaces_every_entry_of_that_name_and_no_other() {
        let mut environment: Vec<CString> =
            [c"HOMER=x", c"HOME=/a", c"noequals", c"HOME=/b"].map(CStr::to_owned).into();
        set(&mut environment, "HOME", OsStr::new("/c"));
        assert_eq!(environment, [c"HOMER=x", c"HOME=/c", c"noequals"].map(CStr::to_owned));
        assert_eq!(lookup(&environment, "HOME"), Some(OsStr::new("/c")));
        assert_eq!(lookup(&environment, "noequals"), None);
    }
}
