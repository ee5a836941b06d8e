//! The suite of [`MessageLog`].

mod dedupe;
mod durability;
mod faults;
mod fixture;
mod model;
mod reading;
mod state;

use std::{fmt, sync::Arc};

use acb_types::{ErrorCode, PartitionId};
use async_trait::async_trait;
use bytes::Bytes;

use super::Turns;
use crate::message_log::{MessageLog, Opened, PartitionLog};

/// How a process can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: the operating system goes on.
    Kill,
    /// The power goes.
    PowerCut,
}

/// Opens and breaks one adapter. Data lives as long as the harness.
#[async_trait]
pub trait LogHarness: Send + 'static {
    /// Opens the data. All partitions of what this opened before were closed or dropped, and so was that.
    async fn open(&mut self) -> Arc<dyn MessageLog>;

    /// Whether it can crash in this way.
    fn can_crash(&self, crash: Crash) -> bool;

    /// Crashes. Every partition was dropped without a close.
    async fn crash(&mut self, crash: Crash);

    /// Makes writes and syncs of what is open fail with a storage code, or heals them. Answers whether this harness can.
    async fn refuse_writes(&mut self, code: Option<ErrorCode>) -> bool;
}

/// A log under test.
pub struct Context {
    harness: Box<dyn LogHarness>,
    turns: Turns,
    /// The log, open.
    pub log: Option<Arc<dyn MessageLog>>,
}

/// A partition under test.
#[derive(Debug)]
struct Hand {
    id: PartitionId,
    log: Box<dyn PartitionLog>,
    /// State records that the opening gave back.
    state: Vec<Bytes>,
}

impl Context {
    /// Opens a log for one case.
    pub async fn new(harness: impl LogHarness, turns: Turns) -> Self {
        let mut harness: Box<dyn LogHarness> = Box::new(harness);
        let log = harness.open().await;
        Self { harness, turns, log: Some(log) }
    }

    fn log(&self) -> &dyn MessageLog {
        self.log.as_deref().unwrap()
    }

    async fn open(&self, id: &PartitionId) -> Hand {
        let Opened { log, state } = self.log().open(id).await.unwrap();
        Hand { id: id.clone(), log, state }
    }

    /// A turn of the case: closes and opens everything where the suite runs that way.
    async fn turn(&mut self, hand: Hand) -> Hand {
        if self.turns == Turns::Plain {
            return hand;
        }
        self.reopen(hand).await
    }

    async fn reopen(&mut self, mut hand: Hand) -> Hand {
        hand.log.close().unwrap();
        let id = hand.id.clone();
        drop(hand);
        self.log = None;
        self.log = Some(self.harness.open().await);
        self.open(&id).await
    }

    /// Crashes and opens anew; `None`, said aloud, when the harness cannot.
    async fn crash(&mut self, hand: Hand, crash: Crash) -> Option<Hand> {
        if !self.harness.can_crash(crash) {
            println!("skipped: this harness cannot do {crash:?}");
            return None;
        }
        let id = hand.id.clone();
        drop(hand);
        self.harness.crash(crash).await;
        self.log = None;
        self.log = Some(self.harness.open().await);
        Some(self.open(&id).await)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("log", &self.log).finish_non_exhaustive()
    }
}

/// The cases.
pub mod cases {
    pub use super::{dedupe::*, durability::*, faults::*, model::*, reading::*, state::*};
}

/// Runs the suite of the message log: `$harness` is an expression that makes a fresh [`LogHarness`].
#[macro_export]
macro_rules! message_log_contract {
    ($harness:expr) => {
        $crate::contract_cases!($harness, message_log =>
            log_1_seqs_rise_from_1_without_doubles,
            log_1_a_seq_that_was_given_is_never_given_again_after_a_kill,
            log_1_a_seq_that_was_given_is_never_given_again_after_a_power_cut,
            log_2_a_repeated_batch_is_answered_with_its_first_seqs,
            log_2_the_new_part_of_a_repeated_batch_is_stored,
            log_2_a_repeat_is_known_without_being_taken_in,
            log_2_an_older_epoch_is_fenced_and_a_newer_one_counts_anew,
            log_2_the_last_ranges_of_a_producer_are_remembered,
            log_2_sessions_do_not_touch_each_other,
            log_3_what_is_written_survives_a_kill,
            log_3_what_is_synced_survives_a_power_cut,
            log_3_a_ticket_covers_what_was_written_before_it,
            log_4_messages_come_back_as_they_were_staged,
            log_4_pages_of_any_size_give_every_message_once,
            log_4_filters_choose_topics,
            log_4_nothing_at_or_after_the_end_is_given,
            log_4_seq_at_finds_the_first_message_of_a_time,
            log_5_what_was_trimmed_is_a_gap,
            log_6_state_records_come_back_in_order,
            log_6_a_complete_snapshot_replaces_what_came_before,
            log_6_an_incomplete_snapshot_is_as_if_not_there,
            log_6_synced_state_survives_a_power_cut,
            log_7_a_key_is_stored_once_and_another_body_is_refused,
            log_7_a_key_twice_in_one_batch_is_stored_once,
            log_7_a_key_is_forgotten_after_its_window,
            log_8_a_full_or_read_only_disk_refuses_and_heals,
            log_8_what_a_failed_write_dropped_can_be_sent_again,
            log_8_a_failed_disk_is_given_up_until_opened_anew,
            log_9_retention_stays_below_the_floor,
            log_10_partitions_share_nothing,
            log_10_a_tenant_is_removed_alone,
            log_10_a_partition_has_one_owner,
            log_4_random_use_reads_as_the_model_does,
        );
    };
}
