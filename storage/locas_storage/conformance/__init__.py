"""Owns the cases that every `MemoryStore` passes, for authors of stores.

Needs pytest, as nothing else in this package does.

Each case is a function of pytest over a fixture `store`, an empty store. A test module of yours runs them all:

    import pytest

    pytest.register_assert_rewrite("locas_storage.conformance")  # failures then show both sides

    from locas_storage.conformance import *  # the cases, collected by pytest from this module

    @pytest.fixture
    def store(tmp_path):
        opened = MyStore(tmp_path)  # a new and empty one for each case
        yield opened
        opened.close()

A fixture with `params` runs them over several stores. Several threads call the store at once in some cases. A store
that cannot do what a case asks for deselects it by name, and says so in its documentation. The store keeps three
different payloads of a user, which is the default of ours.
"""

from locas_storage.conformance.forgetting import (
    test_base_that_was_pruned_is_passed_over,
    test_branch_that_was_rolled_back_is_purged_too,
    test_corrected_turn_is_known_by_its_key,
    test_corrected_turn_is_replaced_and_what_saw_it_is_gone,
    test_correcting_what_is_not_there_is_refused,
    test_erased_user_can_begin_again,
    test_erased_user_is_gone_and_others_are_not,
    test_expired_turn_is_not_shown_and_then_forgotten,
    test_forgetting_again_keeps_the_stops_of_a_rebuild_that_waits,
    test_forgetting_twice_changes_nothing,
    test_forgetting_what_was_never_said_is_refused,
    test_forgotten_key_does_not_come_back,
    test_forgotten_turn_is_gone_at_once_with_all_that_saw_it,
    test_late_writers_are_refused_after_erasure,
    test_purged_revisions_keep_their_numbers_and_nothing_else,
    test_rebuild_is_queued_with_the_former_stops,
    test_retired_items_are_in_force_again_when_what_retired_them_is_forgotten,
    test_turn_of_the_window_is_forgotten_without_a_new_revision,
)
from locas_storage.conformance.journal import (
    test_answers_are_found_by_the_key_of_their_question,
    test_concurrent_appends_leave_no_gap,
    test_hostile_names_never_meet,
    test_many_keys_are_looked_up_at_once,
    test_same_key_is_one_turn,
    test_store_keeps_the_protocol,
    test_turn_has_one_answer,
    test_turns_are_cut_by_number_and_by_newest,
    test_turns_are_found_by_their_keys,
    test_turns_come_back_as_they_went_in,
    test_unknown_user_reads_as_empty,
    test_users_do_not_see_each_other,
)
from locas_storage.conformance.queue import (
    test_claim_overtakes_a_consolidation_without_a_lease,
    test_commit_under_a_lease_ends_the_job,
    test_consolidation_without_a_lease_overtakes_a_worker,
    test_failed_job_is_tried_again_and_dies,
    test_failed_job_waits,
    test_job_of_one_user_can_be_claimed,
    test_job_whose_workers_fall_silent_dies,
    test_jobs_of_similar_length_are_claimed_together,
    test_learnt_turns_are_not_asked_for,
    test_lease_that_ran_out_holds_until_another_claims,
    test_no_job_is_held_twice,
    test_queue_keeps_the_protocol,
    test_reason_is_a_code,
    test_refused_turns_are_settled_with_a_line_in_the_audit_trail,
    test_released_job_was_never_claimed,
    test_turns_are_asked_for_as_they_are_appended,
    test_user_has_one_open_job,
    test_users_of_other_tenants_have_jobs_of_their_own,
    test_what_is_asked_for_meanwhile_stays_asked_for,
    test_worker_that_wakes_late_is_refused,
)
from locas_storage.conformance.retention import (
    test_imported_memory_is_kept_until_its_turn_is_forgotten,
    test_old_payloads_are_pruned_and_their_rows_stay,
    test_pruned_payload_may_come_back,
    test_pruned_revision_cannot_be_restored,
    test_pruning_leaves_others_alone,
    test_rollback_keeps_every_payload,
)
from locas_storage.conformance.revisions import (
    test_changing_an_unknown_user_is_refused,
    test_commit_makes_the_next_revision,
    test_commit_that_does_not_follow_changes_nothing,
    test_only_one_of_two_racing_commits_is_saved,
    test_same_payload_may_be_saved_twice,
    test_study_items_keep_their_order,
    test_study_items_that_do_not_fit_change_nothing,
    test_unknown_revision_is_an_error,
)
from locas_storage.conformance.rollback import (
    test_audit_keeps_what_was_recorded,
    test_learning_goes_on_after_a_rollback,
    test_rollback_brings_an_older_revision_back,
    test_rollback_to_the_current_revision_changes_nothing,
    test_rollback_to_zero_is_no_memory,
)
from locas_storage.conformance.search import (
    test_largest_turns_are_found,
    test_repeated_turn_is_found_once,
    test_search_compares_without_case_and_accents,
    test_search_finds_turns_that_share_a_word,
    test_search_finds_what_is_written_without_spaces_and_emoji,
    test_search_for_what_is_no_text_is_refused,
    test_search_puts_the_best_first,
    test_search_puts_the_newer_of_equal_turns_first,
    test_search_shows_nothing_of_others,
    test_search_takes_any_text_as_words,
    test_search_without_a_word_finds_nothing,
)

__all__ = [
    "test_answers_are_found_by_the_key_of_their_question",
    "test_audit_keeps_what_was_recorded",
    "test_base_that_was_pruned_is_passed_over",
    "test_branch_that_was_rolled_back_is_purged_too",
    "test_changing_an_unknown_user_is_refused",
    "test_claim_overtakes_a_consolidation_without_a_lease",
    "test_commit_makes_the_next_revision",
    "test_commit_that_does_not_follow_changes_nothing",
    "test_commit_under_a_lease_ends_the_job",
    "test_concurrent_appends_leave_no_gap",
    "test_consolidation_without_a_lease_overtakes_a_worker",
    "test_corrected_turn_is_known_by_its_key",
    "test_corrected_turn_is_replaced_and_what_saw_it_is_gone",
    "test_correcting_what_is_not_there_is_refused",
    "test_erased_user_can_begin_again",
    "test_erased_user_is_gone_and_others_are_not",
    "test_expired_turn_is_not_shown_and_then_forgotten",
    "test_failed_job_is_tried_again_and_dies",
    "test_failed_job_waits",
    "test_forgetting_again_keeps_the_stops_of_a_rebuild_that_waits",
    "test_forgetting_twice_changes_nothing",
    "test_forgetting_what_was_never_said_is_refused",
    "test_forgotten_key_does_not_come_back",
    "test_forgotten_turn_is_gone_at_once_with_all_that_saw_it",
    "test_hostile_names_never_meet",
    "test_imported_memory_is_kept_until_its_turn_is_forgotten",
    "test_job_of_one_user_can_be_claimed",
    "test_job_whose_workers_fall_silent_dies",
    "test_jobs_of_similar_length_are_claimed_together",
    "test_largest_turns_are_found",
    "test_late_writers_are_refused_after_erasure",
    "test_learning_goes_on_after_a_rollback",
    "test_learnt_turns_are_not_asked_for",
    "test_lease_that_ran_out_holds_until_another_claims",
    "test_many_keys_are_looked_up_at_once",
    "test_no_job_is_held_twice",
    "test_old_payloads_are_pruned_and_their_rows_stay",
    "test_only_one_of_two_racing_commits_is_saved",
    "test_pruned_payload_may_come_back",
    "test_pruned_revision_cannot_be_restored",
    "test_pruning_leaves_others_alone",
    "test_purged_revisions_keep_their_numbers_and_nothing_else",
    "test_queue_keeps_the_protocol",
    "test_reason_is_a_code",
    "test_rebuild_is_queued_with_the_former_stops",
    "test_refused_turns_are_settled_with_a_line_in_the_audit_trail",
    "test_released_job_was_never_claimed",
    "test_repeated_turn_is_found_once",
    "test_retired_items_are_in_force_again_when_what_retired_them_is_forgotten",
    "test_rollback_brings_an_older_revision_back",
    "test_rollback_keeps_every_payload",
    "test_rollback_to_the_current_revision_changes_nothing",
    "test_rollback_to_zero_is_no_memory",
    "test_same_key_is_one_turn",
    "test_same_payload_may_be_saved_twice",
    "test_search_compares_without_case_and_accents",
    "test_search_finds_turns_that_share_a_word",
    "test_search_finds_what_is_written_without_spaces_and_emoji",
    "test_search_for_what_is_no_text_is_refused",
    "test_search_puts_the_best_first",
    "test_search_puts_the_newer_of_equal_turns_first",
    "test_search_shows_nothing_of_others",
    "test_search_takes_any_text_as_words",
    "test_search_without_a_word_finds_nothing",
    "test_store_keeps_the_protocol",
    "test_study_items_keep_their_order",
    "test_study_items_that_do_not_fit_change_nothing",
    "test_turn_has_one_answer",
    "test_turn_of_the_window_is_forgotten_without_a_new_revision",
    "test_turns_are_asked_for_as_they_are_appended",
    "test_turns_are_cut_by_number_and_by_newest",
    "test_turns_are_found_by_their_keys",
    "test_turns_come_back_as_they_went_in",
    "test_unknown_revision_is_an_error",
    "test_unknown_user_reads_as_empty",
    "test_user_has_one_open_job",
    "test_users_do_not_see_each_other",
    "test_users_of_other_tenants_have_jobs_of_their_own",
    "test_what_is_asked_for_meanwhile_stays_asked_for",
    "test_worker_that_wakes_late_is_refused",
]
