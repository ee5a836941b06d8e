//! Stand-in for the time in which delivery does not compile; never committed.
#![allow(missing_docs, missing_debug_implementations, unused_variables, clippy::unused_async, clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason)]
use std::{sync::Arc, time::Duration};
use acb_ports::{Clock, MessageLog, MetadataStore};
use acb_types::{*, batch::{Sender, StartAt, SubscriptionDef}};
use crate::{error::AppError, telemetry::Metrics};
#[derive(Clone, Debug)]
pub struct DeliveryConfig { pub committer_threads: usize, pub retain_every: Duration }
impl Default for DeliveryConfig { fn default() -> Self { Self { committer_threads: 2, retain_every: Duration::from_secs(10) } } }
#[derive(Debug)]
pub struct DeliveryDeps { pub log: Arc<dyn MessageLog>, pub metadata: Arc<dyn MetadataStore>, pub clock: Arc<dyn Clock>, pub metrics: Arc<Metrics>, pub config: DeliveryConfig }
#[derive(Clone, Debug)]
pub struct SendInput { pub sender: Arc<Sender>, pub envelope: Envelope, pub durability: Durability }
#[derive(Clone, Copy, Debug)]
pub struct SendReceipt { pub id: Option<MessageId>, pub durability: Durability, pub duplicate: bool }
#[derive(Clone, Debug)]
pub struct MessageStatus { pub topic: String, pub from: AgentId, pub stored_at: Timestamp, pub subscriptions: Vec<(SubscriptionName, acb_engine::MessageState)> }
#[derive(Clone, Debug)]
pub struct SubscriptionCounts { pub engine: acb_engine::Counts, pub next_seq: u64, pub dead_letters: u64 }
#[derive(Clone, Debug)]
pub struct DeadLetter { pub id: MessageId, pub subscription: SubscriptionName, pub message_id: MessageId, pub message: Envelope, pub from: Arc<Sender>, pub reason: String, pub last_error: String, pub attempts: u32, pub stored_at: Timestamp, pub died_at: Timestamp }
#[derive(Debug)]
pub struct Delivery { deps: DeliveryDeps, tenants: parking_lot::Mutex<std::collections::HashSet<TenantId>>, subs: parking_lot::Mutex<std::collections::HashSet<(TenantId, SubscriptionName)>> }
pub mod tick { pub fn install(_: std::sync::Arc<crate::telemetry::Metrics>) {} }
impl Delivery {
    pub async fn start(deps: DeliveryDeps) -> Result<Arc<Self>, AppError> { Ok(Arc::new(Self { deps, tenants: Default::default(), subs: Default::default() })) }
    pub async fn tenant_open(&self, t: &TenantId) -> Result<(), AppError> { self.tenants.lock().insert(t.clone()); Ok(()) }
    pub async fn send(&self, t: &TenantId, i: SendInput) -> Result<SendReceipt, AppError> {
        let mut b = bytes::BytesMut::new(); frame::encode(&mut b, &i.envelope); frame::walk(&b.freeze())?;
        Ok(SendReceipt { id: Some(MessageId { class: ClassId::TOPICS, partition: 0, epoch: 1, seq: 1 }), durability: i.durability, duplicate: false })
    }
    pub async fn subscription_open(&self, t: &TenantId, d: SubscriptionDef, c: ClassId, s: StartAt) -> Result<(), AppError> { self.subs.lock().insert((t.clone(), d.name)); Ok(()) }
    pub fn subscription_close(&self, t: &TenantId, c: ClassId, n: &SubscriptionName) { self.subs.lock().remove(&(t.clone(), n.clone())); }
    pub fn subscription_counts(&self, t: &TenantId, n: &SubscriptionName) -> Option<SubscriptionCounts> { self.subs.lock().contains(&(t.clone(), n.clone())).then(|| SubscriptionCounts { engine: Default::default(), next_seq: 1, dead_letters: 0 }) }
    pub fn message_status(&self, t: &TenantId, id: MessageId) -> Result<MessageStatus, AppError> { Err(AppError::of(ErrorCode::MessageNotFound)) }
    pub fn dead_letter_list(&self, t: &TenantId, s: &SubscriptionName, f: u64, l: u32) -> Result<(Vec<DeadLetter>, Option<u64>), AppError> { if self.subs.lock().contains(&(t.clone(), s.clone())) { Ok((vec![], None)) } else { Err(AppError::of(ErrorCode::SubscriptionNotFound)) } }
    pub fn dead_letter_get(&self, t: &TenantId, id: MessageId) -> Result<DeadLetter, AppError> { Err(AppError::of(ErrorCode::DeadLetterNotFound)) }
    pub async fn dead_letter_redrive(&self, t: &TenantId, id: MessageId, p: Option<bytes::Bytes>) -> Result<MessageId, AppError> { Err(AppError::of(ErrorCode::DeadLetterNotFound)) }
    pub async fn dead_letter_discard(&self, t: &TenantId, id: MessageId) -> Result<(), AppError> { Ok(()) }
    pub fn close_sessions(&self, c: ErrorCode) {}
    pub fn close(&self) {}
}
