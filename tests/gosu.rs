//! gosu: beside Debian's gosu in one sandbox, and what must hold beyond it.

mod differential;
mod drop;
mod handover;

use crate::support::Need::{Program, Root};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(
            differential::every_spec_gives_what_debians_gosu_gives,
            &[Root, Program("gosu")]
        ),
        test_case!(
            differential::every_listed_difference_from_debians_gosu_occurs,
            &[Root, Program("gosu")]
        ),
        test_case!(
            differential::missing_and_odd_files_are_read_as_debians_gosu_reads_them,
            &[Root, Program("gosu")]
        ),
        test_case!(
            differential::with_65537_groups_are_refused_and_65536_are_not,
            &[Root, Program("gosu")]
        ),
        test_case!(
            differential::the_command_line_is_read_as_debians_gosu_reads_it,
            &[Root, Program("gosu")]
        ),
        test_case!(
            differential::the_command_is_found_as_debians_gosu_finds_it,
            &[Root, Program("gosu")]
        ),
        test_case!(drop::files_only_the_user_may_execute_are_found_and_others_skipped, &[Root]),
        test_case!(drop::a_user_error_is_told_before_a_command_error, &[Root]),
        test_case!(drop::a_caller_who_is_no_root_is_refused, &[Root]),
        test_case!(
            drop::a_caller_with_the_capabilities_is_as_good_as_root_and_loses_them,
            &[Root, Program("setpriv")]
        ),
        test_case!(drop::groups_that_cannot_be_set_are_told_and_kept, &[Root]),
        test_case!(drop::a_root_without_the_capabilities_is_refused, &[Root]),
        test_case!(drop::a_caller_who_is_that_identity_already_just_execs, &[Root]),
        test_case!(drop::a_set_id_copy_refuses_every_applet, &[Root]),
        test_case!(drop::a_drop_that_did_not_happen_is_noticed, &[Root, Program("strace")]),
        test_case!(drop::capabilities_left_after_the_drop_are_noticed, &[Root, Program("setpriv")]),
        test_case!(
            drop::the_files_are_read_where_openat2_is_not_to_be_had,
            &[Root, Program("strace")]
        ),
        test_case!(drop::a_root_with_nothing_but_itself_and_passwd_is_enough, &[Root]),
        test_case!(handover::process_state_passes_through_untouched, &[Root]),
        test_case!(handover::a_closed_standard_descriptor_stays_closed, &[Root]),
        test_case!(handover::argv_and_environment_pass_through_byte_for_byte, &[Root]),
        test_case!(handover::odd_environment_entries_pass_and_home_comes_once, &[Root]),
        test_case!(handover::a_reader_of_stderr_that_went_away_does_not_change_the_status, &[]),
    ]
}
