//! Specs against databases, all in memory.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::prelude::*;
use proptest::string::string_regex;
use users::os::unix::{GroupExt as _, UserExt as _};

use super::{AgentSpec, Identity, UserDatabase, UserSpec};
use crate::Result;

const PASSWD: &[u8] = b"\
#0:x:0:0::/comment:
root:x:0:0:root:/root:/bin/sh
agent:x:1000:1001:Agent:/home/agent:/bin/sh
baduid:x:10x0:1000::/:/bin/sh
badgid:x:1002:::/:/bin/sh
wraps:x:4294967296:1::/:/bin/sh
minus:x:4294967295:1::/:/bin/sh
blank:x: 1003:1003::/:/bin/sh
nulhome:x:1004:1004::/a\0b:/bin/sh
short
badlater:x:1005:1005::/first:
badlater:x:oops:1005::/second:
badfirst:x:oops:1006::/first:
badfirst:x:1006:1006::/second:
1000:x:1007:1007::/numeric:
 \t indented:x:1008:1008::/indented:/bin/sh\x20\r
high:x:4000000000:4000000001::/high:
lat\xe9:x:1009:1009::/h\xe9:
same:x:1000:1010::/same:
:x:1011:1011::/nameless:
last:x:1012:1012::/last";

const GROUP: &[u8] = b"\
# docker:x:1:agent
root:x:0:
wrong:x:none:agent
wraps:x:4294967296:agent
docker:x:2375:nobody,agent
primary:x:1001:
again:x:2375:agent,agent
blanks:x:2376: agent,last\r
1000:x:2377:1000
high:x:4000000001:agent
last:x:2378:last";

fn resolve(spec: &str) -> Result<Identity> {
    resolve_in(spec.as_bytes(), &UserDatabase::new(PASSWD.into(), GROUP.into()))
}

fn resolve_in(spec: &[u8], database: &UserDatabase) -> Result<Identity> {
    UserSpec::parse(OsStr::from_bytes(spec))?.resolve(database)
}

#[test]
fn a_spec_gives_ids_groups_and_home() {
    let supplementary: &[u32] = &[2375, 2375, 4_000_000_001];
    let rows: &[(&str, u32, u32, &[u32], &str)] = &[
        ("root", 0, 0, &[], "/root"),
        ("0", 0, 0, &[], "/root"),
        ("agent", 1000, 1001, supplementary, "/home/agent"),
        ("1000", 1000, 1001, supplementary, "/home/agent"),
        ("01000", 1000, 1001, supplementary, "/home/agent"),
        ("+1000", 1000, 1001, supplementary, "/home/agent"),
        ("agent:", 1000, 1001, supplementary, "/home/agent"),
        ("agent::docker", 1000, 1001, supplementary, "/home/agent"),
        ("agent:docker", 1000, 2375, &[], "/home/agent"),
        ("agent:docker:root", 1000, 2375, &[], "/home/agent"),
        ("agent:1000", 1000, 1000, &[], "/home/agent"),
        ("agent:high", 1000, 4_000_000_001, &[], "/home/agent"),
        ("agent:4000000001", 1000, 4_000_000_001, &[], "/home/agent"),
        ("same", 1000, 1010, &[], "/same"),
        ("1007", 1007, 1007, &[2377], "/numeric"),
        ("indented", 1008, 1008, &[], "/indented"),
        ("high", 4_000_000_000, 4_000_000_001, &[], "/high"),
        ("4000000000", 4_000_000_000, 4_000_000_001, &[], "/high"),
        ("badlater", 1005, 1005, &[], "/first"),
        ("1011", 1011, 1011, &[], "/nameless"),
        ("last", 1012, 1012, &[2376, 2378], "/last"),
        ("12345:0", 12345, 0, &[], "/"),
        ("2147483647:2147483647", 2_147_483_647, 2_147_483_647, &[], "/"),
    ];
    for (spec, uid, gid, groups, home) in rows {
        let identity = resolve(spec).unwrap();
        assert_eq!((identity.uid, identity.gid), (*uid, *gid), "{spec}");
        assert_eq!((&*identity.groups, &*identity.home), (*groups, Path::new(home)), "{spec}");
    }
}

#[test]
fn what_could_be_taken_for_root_or_for_nobody_is_refused() {
    for (spec, reason) in [
        ("baduid", "its uid field is malformed"),
        ("badgid", "its gid field is malformed"),
        ("1002", "its gid field is malformed"),
        ("badgid:docker", "its gid field is malformed"),
        ("wraps", "its uid field is malformed"),
        ("minus", "its uid field is malformed"),
        ("blank", "its uid field is malformed"),
        ("nulhome", "its home field is malformed"),
        ("1004", "its home field is malformed"),
        ("short", "its uid field is malformed"),
        ("badfirst", "its uid field is malformed"),
        ("#0", "no such user"),
        (" agent", "no such user"),
        ("0x3e8", "no such user"),
        ("1e3", "no such user"),
        ("99999999999999999999", "no such user"),
        ("agent:wrong", "no such group"),
        ("agent:wraps", "no such group"),
        ("agent: docker", "no such group"),
        ("4294967296", "not in the range"),
        ("4294967295", "not in the range"),
        ("2147483648", "not in the range"),
        ("-1", "not in the range"),
        ("agent:-1", "not in the range"),
        ("agent:2147483648", "not in the range"),
        ("agent:4294967296", "not in the range"),
    ] {
        let error = resolve(spec).expect_err(spec).to_string();
        assert!(error.contains(reason), "{spec}: {error}");
    }
}

#[test]
fn an_empty_user_part_is_the_callers_uid() {
    let uid = nix::unistd::getuid().as_raw();
    let database = UserDatabase::new(format!("me:x:{uid}:77::/me:").into(), b"g:x:78:me".into());
    for (spec, gid, groups) in [("", 77, vec![78]), (":", 77, vec![78]), (":5", 5, vec![])] {
        let identity = resolve_in(spec.as_bytes(), &database).unwrap();
        assert_eq!((identity.uid, identity.gid, identity.groups), (uid, gid, groups), "{spec}");
    }
}

#[test]
fn the_agent_is_root_only_if_the_spec_says_so() {
    let passwd = b"root:x:0:0::/root:\ntoor:x:0:0::/root:\nstaff:x:1001:0::/s:\n\
        agent:x:1000:1000::/a:\nodd:x:0:7::/o:";
    let group = b"root:x:0:agent\nwheel:x:0:\nagent:x:1000:";
    let database = UserDatabase::new(passwd.into(), group.into());
    let resolve = |spec: &str| AgentSpec::new(OsStr::new(spec)).resolve(&database);
    for (spec, uid, gid, groups) in [
        ("", 1000, 1000, &[0][..]),
        ("agent", 1000, 1000, &[0]),
        ("agent:", 1000, 1000, &[0]),
        ("root", 0, 0, &[]),
        ("0", 0, 0, &[]),
        ("root:", 0, 0, &[]),
        ("0:agent", 0, 1000, &[]),
        ("root:0", 0, 0, &[]),
        ("agent:root", 1000, 0, &[]),
        ("agent:0", 1000, 0, &[]),
        ("staff:0", 1001, 0, &[]),
        ("1234:0", 1234, 0, &[]),
        ("1234:7", 1234, 7, &[]),
    ] {
        let identity = resolve(spec).expect(spec);
        assert_eq!((identity.uid, identity.gid, &*identity.groups), (uid, gid, groups), "{spec}");
    }
    for (spec, reason) in [
        (":", "its user part is empty"),
        (":agent", "its user part is empty"),
        ("::", "its user part is empty"),
        (":root", "its user part is empty"),
        (" ", "no such user"),
        (" root", "no such user"),
        ("toor", "its uid is 0"),
        ("odd", "its uid is 0"),
        ("odd:agent", "its uid is 0"),
        ("00", "its uid is 0"),
        ("+0", "its uid is 0"),
        ("-0", "its uid is 0"),
        ("staff", "its gid is 0"),
        ("1001", "its gid is 0"),
        ("agent:wheel", "its gid is 0"),
        ("agent:00", "its gid is 0"),
        ("root:wheel", "its gid is 0"),
    ] {
        let error = resolve(spec).expect_err(spec).to_string();
        assert!(error.contains(reason), "{spec}: {error}");
    }
    // Without an entry the gid is the caller's.
    if nix::unistd::getgid().as_raw() == 0 {
        let error = resolve("1234").expect_err("1234").to_string();
        assert!(error.contains("its gid is 0"), "{error}");
    }
}

#[test]
fn records_are_found_by_name_and_by_number() {
    let database = UserDatabase::new(PASSWD.into(), GROUP.into());
    assert_eq!(database.user_by_uid(1000).unwrap().name(), "agent");
    assert!(database.user_by_uid(1002).is_none(), "malformed");
    assert!(database.user_by_name(OsStr::new("badfirst")).is_none(), "malformed");
    assert!(database.user_by_name(OsStr::new("nobody")).is_none());
    let latin = database.user_by_name(OsStr::from_bytes(b"lat\xe9")).unwrap();
    assert_eq!(latin.home_dir().as_os_str().as_bytes(), b"/h\xe9");
    assert_eq!(database.group_by_gid(2375).unwrap().name(), "docker");
    assert_eq!(
        database.group_by_name(OsStr::new("docker")).unwrap().members(),
        ["nobody", "agent"]
    );
    assert!(database.group_by_name(OsStr::new("wrong")).is_none(), "skipped");
}

/// Names that are no numbers, so that a spec means the name.
fn name() -> impl Strategy<Value = String> {
    string_regex("[a-z_\u{e9}][a-z0-9_-]{0,8}").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_content_and_no_spec_panics_or_invents_root(
        passwd in bytes(), group in bytes(), spec in bytes(),
        field in string_regex("[-+0-9a-f \0\u{e9}_,#.]{0,12}").unwrap(),
    ) {
        let database = UserDatabase::new(passwd, group);
        let _ = resolve_in(&spec, &database);
        // A field in the place of the uid is that number or a refusal.
        let line = format!("name:x:{field}:1::/:");
        match resolve_in(b"name", &UserDatabase::new(line.into(), Vec::new())) {
            Ok(identity) => prop_assert_eq!(field.parse::<u32>(), Ok(identity.uid)),
            Err(_) => prop_assert!(field.parse::<u32>().is_err() || field == "4294967295"),
        }
    }

    #[test]
    fn lines_are_what_stands_between_newlines_less_the_blanks_around(
        entries in proptest::collection::vec((name(), 0..u32::MAX, 0..u32::MAX, noise()), 0..8),
        last_newline: bool,
    ) {
        let mut text = String::new();
        for (name, uid, gid, (before, indent, trail)) in &entries {
            text += &format!("{before}{indent}{name}:x:{uid}:{gid}:,:/home/{name}:/bin/sh{trail}\n");
        }
        if !last_newline {
            text.pop();
        }
        let database = UserDatabase::new(text.into(), Vec::new());
        for (name, ..) in &entries {
            let (_, uid, gid, _) = entries.iter().find(|entry| entry.0 == *name).unwrap();
            let identity = resolve_in(name.as_bytes(), &database).unwrap();
            prop_assert_eq!((identity.uid, identity.gid), (*uid, *gid));
            prop_assert_eq!(identity.home, Path::new("/home").join(name));
        }
        for (_, uid, ..) in &entries {
            let (name, ..) = entries.iter().find(|entry| entry.1 == *uid).unwrap();
            let user = database.user_by_uid(*uid).unwrap();
            prop_assert_eq!(user.name(), &**name);
        }
    }

    #[test]
    fn groups_are_those_that_list_the_name_in_the_order_of_the_file(
        groups in proptest::collection::vec(
            (
                0..u32::MAX,
                proptest::collection::vec(string_regex("[ab]{1,2}").unwrap(), 0..4),
                noise(),
            ),
            0..8,
        ),
    ) {
        let mut text = String::new();
        for (gid, members, (before, indent, trail)) in &groups {
            text += &format!("{before}{indent}g{gid}:x:{gid}:{}{trail}\n", members.join(","));
        }
        let database = UserDatabase::new(b"ab:x:1:2::/:".into(), text.into());
        let wanted: Vec<u32> = groups
            .iter()
            .filter(|(_, members, _)| members.iter().any(|member| member == "ab"))
            .map(|(gid, ..)| *gid)
            .collect();
        prop_assert_eq!(resolve_in(b"ab", &database).unwrap().groups, wanted);
    }
}

/// Bytes with many of the characters that mean something in these files.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    const MEANING: &[u8] = b":::::\n\n\n,,# 0123456789";
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| {
        bytes.iter().map(|&byte| *MEANING.get(usize::from(byte) / 4).unwrap_or(&byte)).collect()
    })
}

/// Lines that do not count, blanks before and blanks after a line.
fn noise() -> impl Strategy<Value = (String, &'static str, &'static str)> {
    let before = proptest::collection::vec(
        prop_oneof![Just("\n"), Just(" \t\n"), Just("\r\n"), Just("#ab:x:0:0\n"), Just(" # x\n")],
        0..3,
    );
    let blanks = || prop_oneof![Just(""), Just(" "), Just("\t"), Just("\r"), Just(" \x0b\x0c\r")];
    (before.prop_map(|lines| lines.concat()), blanks(), blanks())
}
