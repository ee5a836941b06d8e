//! Being laid down: signatures first.
mod api;
mod partition;

pub use api::{
    Connected, Corrupt, Counts, Credit, Death, DeathReason, Delivery, DeliveryState, Effects, EngineConfig, JournalMark,
    MessageState, Plan, PlanKind, SeqRange, SessionDef, SessionKey, Settlement, Totals,
};
pub use partition::Engine;
