//! ACLs and extended attributes.

use crate::support::pair::Pair;
use crate::support::tree::{
    ACCESS, CAPABILITY, DEFAULT, GROUP, GROUP_OBJ, MASK, NO_ID, OTHER, USER, USER_OBJ, acl,
    acl_of_user,
};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(access_and_default_acls_are_kept_masks_and_all, needs),
        test_case!(a_default_acl_does_not_leak_into_new_children, needs),
        test_case!(acls_are_removed_where_the_source_has_none, needs),
        test_case!(an_acl_with_a_changing_set_id_bit_needs_one_run, needs),
        test_case!(user_trusted_and_security_xattrs_are_kept, needs),
        test_case!(surplus_xattrs_go_from_the_top_directory_too, needs),
        test_case!(file_capabilities_survive_the_change_of_owner, needs),
        test_case!(an_xattr_that_differs_only_in_value_is_seen, needs),
    ]
}

fn access_and_default_acls_are_kept_masks_and_all() {
    let pair = Pair::new();
    let from = pair.from();
    from.file("named", "x").xattr("named", ACCESS, acl_of_user(3_000_000_000));
    let mask_only =
        [(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 6, NO_ID), (MASK, 4, NO_ID), (OTHER, 0, NO_ID)];
    from.file("masked", "x").xattr("masked", ACCESS, acl(&mask_only));
    let many: Vec<_> = [(USER_OBJ, 7, NO_ID)]
        .into_iter()
        .chain((0..40).map(|uid| (USER, 5, 10_000 + uid)))
        .chain([(GROUP_OBJ, 0, NO_ID)])
        .chain((0..40).map(|gid| (GROUP, 1, 20_000 + gid)))
        .chain([(MASK, 7, NO_ID), (OTHER, 0, NO_ID)])
        .collect();
    from.file("many", "x").xattr("many", ACCESS, acl(&many));
    from.dir("both").xattr("both", ACCESS, acl_of_user(5)).xattr("both", DEFAULT, acl(&many));
    from.dir("default").xattr("default", DEFAULT, acl(&mask_only)).mode("default", 0o2750);
    from.fifo("pipe").xattr("pipe", ACCESS, acl_of_user(6));
    from.xattr("", DEFAULT, acl_of_user(9)).xattr("", ACCESS, acl_of_user(10));
    pair.mirror();
    pair.assert_equal();
}

fn a_default_acl_does_not_leak_into_new_children() {
    let pair = Pair::new();
    for name in ["file", "dir/in", "dir/deep/in"] {
        pair.from().file(name, "x");
    }
    pair.from().fifo("fifo").symlink("sym", "x").mode("dir/in", 0o640).mode("dir", 0o711);
    // The default ACLs come last, so that no source entry inherits one.
    pair.from().xattr("dir", DEFAULT, acl_of_user(7)).xattr("", DEFAULT, acl_of_user(8));
    pair.to().xattr("", DEFAULT, acl_of_user(1)).file("inherited", "goes");
    pair.mirror();
    pair.assert_equal();
}

fn acls_are_removed_where_the_source_has_none() {
    let pair = Pair::new();
    for tree in [pair.from(), pair.to()] {
        tree.file("file", "x").dir("dir").file("dir/in", "x").mtime("file", 5, 5);
    }
    let to = pair.to();
    to.xattr("file", ACCESS, acl_of_user(1)).xattr("dir", DEFAULT, acl_of_user(2));
    to.xattr("dir", ACCESS, acl_of_user(3)).xattr("", DEFAULT, acl_of_user(4));
    to.xattr("", ACCESS, acl_of_user(5)).xattr("dir/in", ACCESS, acl_of_user(6));
    pair.mirror();
    pair.assert_equal();
}

fn an_acl_with_a_changing_set_id_bit_needs_one_run() {
    let pair = Pair::new();
    for (number, mode) in [0o2755, 0o4755, 0o1777, 0o6770].into_iter().enumerate() {
        let (file, dir) = (format!("f{number}"), format!("d{number}"));
        for tree in [pair.from(), pair.to()] {
            tree.file(&file, "x").mtime(&file, 5, 5).dir(&dir);
        }
        for name in [&file, &dir] {
            pair.from().mode(name, mode).xattr(name, ACCESS, acl_of_user(77));
            pair.to().mode(name, 0o644);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn user_trusted_and_security_xattrs_are_kept() {
    let pair = Pair::new();
    let from = pair.from();
    from.file("file", "x").dir("dir").fifo("fifo").symlink("sym", "x");
    for name in ["file", "dir", ""] {
        from.xattr(name, "user.empty", "").xattr(name, "user.text", "a value");
        from.xattr(name, "trusted.binary", [0, 255, 10, 0]).xattr(name, "security.note", "s");
    }
    for name in ["fifo", "sym"] {
        from.xattr(name, "trusted.kept", "1").xattr(name, "security.note", "s");
    }
    from.xattr("file", "user.large", vec![b'l'; 3000]);
    from.xattr("file", &format!("user.{}", "n".repeat(250)), "long name");
    for number in 0..20 {
        from.xattr("dir", &format!("user.number{number}"), number.to_string());
    }
    pair.mirror();
    pair.assert_equal();
}

fn surplus_xattrs_go_from_the_top_directory_too() {
    let pair = Pair::new();
    for tree in [pair.from(), pair.to()] {
        tree.file("file", "x").dir("dir").fifo("fifo").symlink("sym", "x").mtime("file", 5, 5);
        tree.xattr("file", "user.both", "1");
    }
    let to = pair.to();
    for name in ["file", "dir", ""] {
        to.xattr(name, "user.surplus", "1").xattr(name, "security.surplus", "1");
    }
    for name in ["file", "dir", "", "fifo", "sym"] {
        to.xattr(name, "trusted.surplus", "1");
    }
    to.xattr("file", "security.capability", CAPABILITY);
    pair.mirror();
    pair.assert_equal();
}

fn file_capabilities_survive_the_change_of_owner() {
    let pair = Pair::new();
    for name in ["new", "owner differs", "content differs", "linked"] {
        pair.from().file(name, "binary").owner(name, 1000, 1000).mtime(name, 5, 5);
        pair.from().xattr(name, "security.capability", CAPABILITY).mode(name, 0o4755);
    }
    pair.from().link("other name", "linked");
    pair.to().file("owner differs", "binary").mtime("owner differs", 5, 5);
    pair.to()
        .file("content differs", "older binary")
        .file("linked", "binary")
        .mtime("linked", 5, 5);
    pair.mirror();
    pair.assert_equal();
}

fn an_xattr_that_differs_only_in_value_is_seen() {
    let pair = Pair::new();
    for (tree, value) in [(pair.from(), "one"), (pair.to(), "two")] {
        tree.file("file", "x").mtime("file", 5, 5).xattr("file", "user.a", value);
        tree.dir("dir").xattr("dir", "trusted.a", value);
    }
    pair.mirror();
    pair.assert_equal();
}
