//! Runs the models.

macro_rules! models {
    ($($module:ident: $($name:ident),+;)+) => {
        $(mod $module { $(#[test] fn $name() { fusebox_model::models::$module::$name(); })+ })+
    };
}

models! {
    in_flight:
        no_more_than_the_limit_are_admitted,
        under_a_limit_that_shrinks_no_more_than_the_new_one_are_admitted_by_it,
        nobody_is_refused_where_a_permit_is_free_throughout;
    rate:
        a_burst_is_taken_by_racing_calls_exactly_once,
        threads_that_see_time_out_of_order_take_no_more_than_the_slack_adds,
        calls_that_race_with_a_reload_take_at_most_another_burst,
        the_first_rate_counts_every_call_from_the_first_that_finds_it;
    trip:
        a_generation_opens_exactly_once,
        whoever_sees_it_open_is_refused_and_whoever_passed_before_is_late,
        an_outcome_of_an_older_generation_never_counts_in_a_newer_window;
    probes:
        it_turns_half_open_once_and_no_more_probes_pass_than_the_policy_allows,
        a_cancelled_probe_leaves_its_slot_free_and_no_more_are_in_flight_than_the_policy_allows,
        as_many_successes_as_probes_close_it_exactly_once,
        one_failed_probe_opens_it_exactly_once;
    window:
        a_reader_sees_a_count_only_grow_and_in_the_end_all_of_it,
        writers_that_share_a_counter_lose_nothing,
        the_first_outcomes_of_a_slice_replace_an_older_one_and_lose_nothing,
        a_resize_keeps_all_that_was_counted_before_and_doubles_nothing;
    slots:
        a_counter_that_is_handed_over_loses_nothing,
        a_window_that_is_handed_over_loses_nothing;
    fuse:
        permits_are_conserved_through_a_reload,
        no_more_are_in_flight_than_the_larger_limit_and_later_than_the_new_one,
        whoever_sees_the_new_word_sees_the_new_terms,
        a_probe_gives_its_slot_back_whatever_becomes_of_the_policy,
        the_next_outcome_after_a_reload_is_judged_by_the_new_policy;
    judging:
        two_outcomes_that_complete_the_volume_open_it_with_the_next_at_the_latest,
        of_two_judges_that_miss_each_other_none_forgets_what_the_other_saw,
        a_judge_that_finds_no_failure_does_not_put_off_the_judgement_of_one;
}
