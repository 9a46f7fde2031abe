//! gosu: beside Debian's gosu in one sandbox, and what must hold beyond it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "gosu/differential.rs"]
mod differential;
#[path = "gosu/drop.rs"]
mod drop;
#[path = "gosu/handover.rs"]
mod handover;
mod support;

use std::process::ExitCode;

use support::Need::{Program, Root};
use support::case;

fn main() -> ExitCode {
    support::run(vec![
        case(
            "every_spec_gives_what_debians_gosu_gives",
            &[Root, Program("gosu")],
            differential::specs,
        ),
        case(
            "every_listed_difference_from_debians_gosu_occurs",
            &[Root, Program("gosu")],
            differential::listed_differences,
        ),
        case(
            "missing_and_odd_files_are_read_as_debians_gosu_reads_them",
            &[Root, Program("gosu")],
            differential::files,
        ),
        case(
            "65537_groups_are_refused_and_65536_are_not",
            &[Root, Program("gosu")],
            differential::many_groups,
        ),
        case(
            "the_command_line_is_read_as_debians_gosu_reads_it",
            &[Root, Program("gosu")],
            differential::command_lines,
        ),
        case(
            "the_command_is_found_as_debians_gosu_finds_it",
            &[Root, Program("gosu")],
            differential::look_up,
        ),
        case(
            "files_only_the_user_may_execute_are_found_and_others_skipped",
            &[Root],
            drop::look_up,
        ),
        case("a_user_error_is_told_before_a_command_error", &[Root], drop::order_of_errors),
        case("a_caller_who_is_no_root_is_refused", &[Root], drop::not_root),
        case(
            "a_caller_with_the_capabilities_is_as_good_as_root_and_loses_them",
            &[Root, Program("setpriv")],
            drop::capable,
        ),
        case("groups_that_cannot_be_set_are_told_and_kept", &[Root], drop::groups_kept),
        case(
            "a_root_without_the_capabilities_is_refused",
            &[Root],
            drop::root_without_capabilities,
        ),
        case("a_caller_who_is_that_identity_already_just_execs", &[Root], drop::already),
        case("a_set_id_copy_refuses_every_applet", &[Root], drop::set_id_copy),
        case(
            "a_drop_that_did_not_happen_is_noticed",
            &[Root, Program("strace")],
            drop::ineffective_calls,
        ),
        case(
            "capabilities_left_after_the_drop_are_noticed",
            &[Root, Program("setpriv")],
            drop::capabilities_left,
        ),
        case(
            "the_files_are_read_where_openat2_is_not_to_be_had",
            &[Root, Program("strace")],
            drop::without_openat2,
        ),
        case("a_root_with_nothing_but_itself_and_passwd_is_enough", &[Root], drop::bare_root),
        case("process_state_passes_through_untouched", &[Root], handover::process_state),
        case("a_closed_standard_descriptor_stays_closed", &[Root], handover::closed_descriptors),
        case("argv_and_environment_pass_through_byte_for_byte", &[Root], handover::bytes),
        case(
            "odd_environment_entries_pass_and_home_comes_once",
            &[Root],
            handover::odd_environment,
        ),
        case(
            "a_reader_of_stderr_that_went_away_does_not_change_the_status",
            &[],
            handover::no_reader,
        ),
    ])
}
