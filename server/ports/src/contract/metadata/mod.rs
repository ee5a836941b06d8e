//! The suite of [`MetadataStore`].

mod agents;
mod changes;
mod context_lists;
mod contexts;
mod credentials;
mod fixture;
mod groups;
mod model;
mod store;
mod subscriptions;
mod tenants;
mod uploads;

use std::sync::Arc;

use acb_types::ErrorCode;
use async_trait::async_trait;

use super::Turns;
use crate::metadata::MetadataStore;

/// Opens and breaks one adapter. Data lives as long as the harness.
#[async_trait]
pub trait MetadataHarness: Send + 'static {
    /// Opens the data; what this opened before was closed.
    async fn open(&mut self) -> Arc<dyn MetadataStore>;

    /// Makes writes of what is open fail as with a full (`storage_full`) or read-only (`storage_read_only`) disk, or heals
    /// it. Answers whether this harness can.
    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool;
}

/// A store under test.
pub struct Context {
    harness: Box<dyn MetadataHarness>,
    turns: Turns,
    /// The store, open.
    pub store: Arc<dyn MetadataStore>,
}

impl Context {
    /// Opens a store for one case.
    pub async fn new(harness: impl MetadataHarness, turns: Turns) -> Self {
        let mut harness: Box<dyn MetadataHarness> = Box::new(harness);
        let store = harness.open().await;
        Self { harness, turns, store }
    }

    /// A turn of the case: closes and opens the store where the suite runs that way.
    async fn turn(&mut self) {
        if self.turns == Turns::Reopened {
            self.reopen().await;
        }
    }

    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = self.harness.open().await;
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The cases, by noun.
pub mod cases {
    pub use super::{
        agents::*, changes::*, context_lists::*, contexts::*, credentials::*, groups::*, model::*, store::*,
        subscriptions::*, tenants::*, uploads::*,
    };
}

/// Runs the suite of the metadata store: `$harness` is an expression that makes a fresh [`MetadataHarness`].
#[macro_export]
macro_rules! metadata_store_contract {
    ($harness:expr) => {
        $crate::contract_cases!($harness, metadata =>
            meta_1_tenants_share_nothing,
            meta_3_a_tenant_is_made_once,
            meta_22_an_unknown_tenant_refuses_writes_and_shows_nothing,
            meta_2_an_agent_is_kept_as_it_was_given,
            meta_4_every_change_of_an_agent_raises_the_revision_by_one,
            meta_4_revisions_of_16_writers_have_no_hole_and_follow_commit_order,
            meta_5_another_credential_cannot_take_a_held_id,
            meta_5_the_same_credential_replaces_what_the_agent_says,
            meta_6_incarnations_rise_over_removals,
            meta_7_implicit_subscriptions_come_with_the_registration_and_keep_their_number,
            meta_8_removing_ends_the_inbox_unless_it_is_kept,
            meta_8_only_the_holder_removes_and_updates_when_asked_so,
            meta_9_all_conditions_of_a_filter_must_hold,
            meta_9_text_is_found_in_any_case,
            meta_21_agents_are_paged_without_doubles_while_others_come_and_go,
            meta_21_a_limit_outside_its_range_is_refused,
            meta_10_subscription_numbers_are_never_given_again,
            meta_11_the_same_definition_again_finds_the_row,
            meta_11_another_definition_under_the_name_is_refused,
            meta_11_of_16_concurrent_creations_one_makes_the_row,
            meta_12_implicit_names_are_not_for_users,
            meta_13_a_tenant_has_a_limit_of_subscriptions,
            meta_21_subscriptions_are_listed_by_name_and_by_number,
            meta_14_revoking_a_key_revokes_its_families,
            meta_14_a_key_is_kept_as_it_was_given,
            meta_15_a_new_secret_raises_the_version_and_revokes_the_old_families,
            meta_16_one_signing_key_signs_and_retired_ones_are_forgotten,
            meta_17_a_refresh_token_works_once,
            meta_17_of_16_concurrent_rotations_one_wins,
            meta_17_former_tokens_are_remembered_to_their_bound,
            meta_17_a_family_that_is_over_or_revoked_says_so,
            meta_18_revoked_families_are_listed_until_they_are_over,
            meta_19_audit_rows_are_chained,
            meta_20_of_16_concurrent_puts_if_absent_one_puts,
            meta_23_refused_writes_change_nothing_and_heal,
            meta_2_a_closed_store_says_so,
            meta_24_a_context_is_kept_as_it_was_given,
            meta_24_making_it_again_finds_it_and_another_use_of_its_id_is_refused,
            meta_24_a_key_is_free_as_soon_as_its_context_is_over,
            meta_24_of_16_concurrent_creations_of_a_key_one_makes_it,
            meta_26_a_write_happens_only_at_its_revision,
            meta_26_increments_of_16_writers_are_all_counted,
            meta_26_force_overwrites_until_access_was_changed,
            meta_26_an_update_changes_what_is_given,
            meta_27_a_repeated_update_is_answered_with_the_first,
            meta_28_the_newest_64_revisions_are_kept_and_read_back,
            meta_29_a_marker_stands_for_what_was_removed,
            meta_30_what_is_over_is_absent_and_gets_its_marker_once,
            meta_33_old_markers_go_with_all_that_is_kept_of_them,
            meta_36_every_kept_blob_is_named_and_no_other,
            meta_31_all_conditions_of_a_filter_must_hold,
            meta_31_a_list_shows_what_the_last_update_said,
            meta_31_a_list_at_a_revision_shows_what_was_there_then,
            meta_21_contexts_are_paged_without_doubles_while_others_come_and_go,
            meta_32_each_revision_leaves_one_change,
            meta_32_a_change_says_when_what_it_shows_is_no_longer_kept,
            meta_33_trimming_forgets_the_oldest_changes_and_says_where_they_begin,
            meta_37_a_raised_revision_wakes_who_waits,
            meta_32_changes_of_16_writers_have_no_hole,
            meta_34_a_group_is_made_once_and_ends_with_its_memberships,
            meta_34_a_context_names_groups_that_are_there,
            meta_35_members_come_and_go_and_twice_is_once,
            meta_35_memberships_are_read_as_they_were,
            meta_38_groups_members_and_memberships_have_limits,
            meta_2_random_calls_answer_as_the_model_does,
            up_1_an_upload_is_kept_as_it_was_asked_for_and_is_its_owners,
            up_3_an_opening_fences_the_session_before_it,
            up_4_a_chunk_is_added_once_and_all_of_a_call_or_none,
            up_6_an_upload_becomes_complete_with_its_context_or_neither,
            up_6_of_16_concurrent_completions_one_makes_the_context,
            up_7_an_upload_ends_once_and_drops_its_chunks,
            up_8_a_tenant_has_a_limit_of_unfinished_uploads,
            up_9_chunks_of_complete_uploads_are_found_by_digest,
        );
    };
}
