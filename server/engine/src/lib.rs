//! The delivery engine of one partition: who is given which message, for how long, how often, and what becomes of it.
//!
//! A pure state machine. It knows no socket, no disk, no clock, no thread and no dice but a seeded one: operations and the
//! time go in, effects come out, and the same operations give the same effects. So the simulation runs the very code
//! that serves, and a seed replays a bad night.
//!
//! # Who drives it
//!
//! A runner holds an [`Engine`] under a lock beside the partition's log, and does this:
//!
//! - **Messages that became visible** go to [`Engine::appended`], in seq order, once they have reached their level.
//! - **A kicked session** calls [`Engine::plan`], reads what the plan asks for (outside the lock), and hands it to
//!   [`Engine::commit`], until there is no plan. A read that fails goes to [`Engine::abandon`].
//! - **State** is taken by [`Engine::take_journal`] until there is none, staged into the log in order, and reported by
//!   [`Engine::journal_durable`] once a sync has covered it; only then are confirmed acks answered. After a write that
//!   dropped what was staged, [`Engine::journal_lost`] has all of it said again. When the log wants a snapshot,
//!   [`Engine::snapshot`] stands for all records before it.
//! - **A death** is read, appended to the dead letters durably (or dropped, as its policy says), and reported by
//!   [`Engine::dead`].
//! - **Time**: [`Engine::advance`] at [`Engine::next_timer`] or later. Leases and waits run on the monotonic clock.
//! - **Retention** asks [`Engine::floor`] and reports by [`Engine::trimmed`]. Once after a restart, and every hour or so,
//!   a round of [`Engine::survey`] lets go of what absent consumers will never be given.
//! - **After a restart**: [`Engine::restore`], then [`Engine::dead`] for what the dead-letter log knows and the records
//!   may not, then [`Engine::advance`], and only then sessions.
//!
//! ```
//! use std::sync::Arc;
//! use acb_engine::*;
//! use acb_types::{*, batch::*, frame};
//!
//! #[derive(Default)]
//! struct Outbox(Vec<Delivery>);
//! impl Effects for Outbox {
//!     fn deliver(&mut self, _: SessionKey, delivery: Delivery) { self.0.push(delivery) }
//!     fn kick(&mut self, _: SessionKey) {}
//!     fn settled(&mut self, _: SessionKey, _: Seq, _: u32, _: Result<(), ErrorCode>) {}
//!     fn gap(&mut self, _: SessionKey, _: Gap) {}
//!     fn die(&mut self, _: Death) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut engine = Engine::new(EngineConfig::default());
//! let mut fx = Outbox::default();
//! let now = Now::default();
//! engine.subscribe(
//!     SubscriptionDef {
//!         id: SubscriptionId(1),
//!         name: SubscriptionName::user("reviews")?,
//!         filters: ["code.*".parse()?].into(),
//!         ack_wait: limits::LEASE,
//!         retry_schedule: limits::RETRY_SCHEDULE.into(),
//!         max_attempts: limits::MAX_ATTEMPTS,
//!         dead_letters: DeadLetterPolicy::Keep,
//!         max_leased: limits::MAX_LEASED,
//!         ephemeral: false,
//!     },
//!     1,
//!     now,
//! );
//! let worker = SessionDef {
//!     token: [7; 16],
//!     agent: "worker".parse()?,
//!     incarnation: Incarnation(1),
//!     credit: Credit { messages: 64, bytes: 8 << 20 },
//!     resume_delivery: None,
//! };
//! let connected = engine.connect(SubscriptionId(1), worker, now, &mut fx).map_err(|code| code.name())?;
//! let session = connected.session;
//!
//! let mut body = bytes::BytesMut::new();
//! frame::encode(&mut body, &Envelope { topic: "code.review".into(), ..Envelope::default() });
//! let body = body.freeze();
//! let walked = frame::walk(&body)?;
//! let sender = Arc::new(Sender { agent: "planner".parse()?, incarnation: Incarnation(1) });
//! let facts = Arc::new(Facts { epoch: 1, stored_at: now.wall, sender, flags: walked.flags });
//! engine.appended(1, &body, &walked.runs, &facts, now, &mut fx);
//! assert_eq!(fx.0[0].body, body);
//!
//! engine.settle(session, Settlement::Ack(SeqRange::one(1)), now, &mut fx);
//! assert_eq!(engine.floor(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! Work is per run and per range, not per message; a full frame to one subscriber is one lease entry. Budgets and what was
//! measured stand in ADR 0004; `examples/cost.rs` measures them anew. Behind a consumer that sleeps, a subscription is
//! its cursor, whatever piles up. What is in hand (leased, waiting, dying) is bounded by the subscription's
//! `max_leased`, and everything remembered beside it by [`EngineConfig`].
//!
//! # What is not here
//!
//! No rule of order keys, priorities, delays, attribute filters, anycast and exclusive groups: they come later, and
//! ADR 0004 says into which room each goes. No exactly-once: a message may come again when an ack was not durable, a
//! lease ended or a connection was lost; [`Delivery::attempt`] says so where an attempt failed.

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
mod reading;
mod redelivery;
mod session;
mod settle;
mod state_record;
mod status;
mod subscription;
mod survey;
mod timer;

pub use api::{
    Connected, Corrupt, Counts, Credit, Death, DeathReason, Delivery, DeliveryState, Effects, EngineConfig,
    JournalMark, MessageState, Plan, PlanKind, SeqRange, SessionDef, SessionKey, Settlement, Totals,
};
pub use partition::Engine;
pub use survey::Survey;
