//! Being laid down.

mod api;
mod credit;
mod dead_letter;
mod delivery;
mod expiry;
mod group;
mod journal;
mod lease;
mod mask;
mod matching;
mod partition;
pub mod planted;
mod ranges;
mod redelivery;
mod session;
mod settle;
mod state_record;
mod status;
mod subscription;
mod timer;

pub use api::{
    Connected, Corrupt, Counts, Credit, Death, DeathReason, Delivery, DeliveryState, Effects, EngineConfig,
    JournalMark, MessageState, Plan, PlanKind, SeqRange, SessionDef, SessionKey, Settlement, Totals,
};
pub use partition::Engine;
