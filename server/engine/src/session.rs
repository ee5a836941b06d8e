//! Sessions: connections of consumers, their grace, and coming back.

use acb_types::{
    AgentId, Incarnation, Now, SubscriptionId, error_code::ErrorCode, limits::SESSION_ID_BYTES, position::Seq,
};
use slab::Slab;
use smallvec::SmallVec;

use crate::{
    api::{Connected, Credit, Effects, SessionDef, SessionKey},
    credit::Window,
    partition::{Core, Engine},
    planted::{Bug, planted},
    ranges::RangeSet,
    redelivery::Failure,
    timer::Wakes,
};

/// Ranges of lost leases that are remembered of one session. Whatever lies below those forgotten counts as lost, too.
const LOST_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Session {
    generation: u32,
    /// Never reused, and kept over a resume.
    pub(crate) serial: u64,
    /// Slot of its subscription.
    pub(crate) slot: u32,
    token: [u8; SESSION_ID_BYTES],
    agent: AgentId,
    incarnation: Incarnation,
    pub(crate) window: Window,
    /// Number of the last message delivered.
    pub(crate) delivered: u64,
    /// Rises with every delivery of the partition: whoever has the lowest was served least recently.
    pub(crate) turn: u64,
    /// `false` during the grace after a lost connection.
    pub(crate) connected: bool,
    /// Whether it was kicked and has not been told yet that there is nothing to read.
    pub(crate) kicked: bool,
    /// Delivered to it, and taken away again: a late settlement is told so.
    lost: RangeSet,
    lost_below: Seq,
}

impl Session {
    /// Remembers that leases were taken from it.
    pub(crate) fn lose(&mut self, range: std::ops::Range<Seq>) {
        self.lost.insert(range);
        if self.lost.len() > LOST_MAX
            && let Some(range) = self.lost.pop_first()
        {
            self.lost_below = range.end;
        }
    }

    /// Forgets lost leases on messages that it was given again.
    pub(crate) fn regain(&mut self, range: std::ops::Range<Seq>) {
        if !self.lost.is_empty() {
            self.lost.remove(range);
        }
    }

    /// Adds to `out` what of a range it has lost.
    pub(crate) fn lost_in(&self, range: &std::ops::Range<Seq>, out: &mut RangeSet) {
        if self.lost.is_empty() {
            return;
        }
        self.lost.within(range.clone()).for_each(|r| out.insert(r));
        out.insert(range.start..range.end.min(self.lost_below).max(range.start));
    }
}

/// All sessions of an engine.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    generation: u32,
    serial: u64,
}

impl Sessions {
    pub(crate) fn at(&self, index: u32) -> Option<&Session> {
        self.slab.get(index as usize)
    }

    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.slab.get_mut(index as usize)
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.at(key.index).filter(|s| s.generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.at_mut(key.index).filter(|s| s.generation == key.generation)
    }

    /// The present key of the session at an index.
    pub(crate) fn key(&self, index: u32) -> SessionKey {
        SessionKey { index, generation: self.at(index).map_or(0, |s| s.generation) }
    }

    pub(crate) fn connected(&self) -> u64 {
        self.slab.iter().filter(|(_, s)| s.connected).count() as u64
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn open(&mut self, slot: u32, def: SessionDef) -> SessionKey {
        let generation = self.next_generation();
        self.serial += 1;
        let index = self.slab.insert(Session {
            generation,
            serial: self.serial,
            slot,
            token: def.token,
            agent: def.agent,
            incarnation: def.incarnation,
            window: Window { credit: def.credit, ..Window::default() },
            delivered: 0,
            turn: 0,
            connected: true,
            kicked: false,
            lost: RangeSet::default(),
            lost_below: 0,
        });
        SessionKey { index: index as u32, generation }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Session> {
        self.slab.try_remove(index as usize)
    }
}

/// How a session ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its connection was lost and nobody came back for it.
    Lost,
    /// Its consumer said goodbye.
    Left,
}

impl Engine {
    /// Opens a session, or resumes the one that the same agent opened with the same token: its leases and delivery
    /// numbers go on, what was delivered after `resume_delivery` is given again at once and uncounted. Another live
    /// connection of the token, and sessions of older incarnations of the agent, are fenced.
    ///
    /// # Errors
    /// `subscription_not_found`; `session_fenced` when a newer incarnation of the agent is there; `too_many_streams`.
    pub fn connect(
        &mut self,
        subscription: SubscriptionId,
        def: SessionDef,
        now: Now,
        fx: &mut impl Effects,
    ) -> Result<Connected, ErrorCode> {
        let core = &mut self.core;
        let slot = core.slot(subscription).ok_or(ErrorCode::SubscriptionNotFound)?;
        let members: SmallVec<[u32; 8]> = core.members(slot).iter().copied().collect();
        let mut resumed = None;
        let mut older: SmallVec<[u32; 2]> = SmallVec::new();
        for &index in &members {
            let Some(other) = core.sessions.at(index).filter(|s| s.agent == def.agent) else { continue };
            if other.incarnation > def.incarnation && def.incarnation.0 > 0 {
                return Err(ErrorCode::SessionFenced);
            }
            if other.incarnation < def.incarnation && other.incarnation.0 > 0 {
                older.push(index);
            } else if other.token == def.token {
                resumed = Some(index);
            }
        }
        if resumed.is_none() && members.len() - older.len() >= core.config.sessions_per_subscription {
            return Err(ErrorCode::TooManyStreams);
        }
        let mut fenced = SmallVec::new();
        for index in older {
            if core.sessions.at(index).is_some_and(|s| s.connected) {
                fenced.push(core.sessions.key(index));
            }
            core.end_session(index, Ending::Lost, now, fx);
        }
        let session = if let Some(index) = resumed {
            if core.sessions.at(index).is_some_and(|s| s.connected) {
                fenced.push(core.sessions.key(index));
            }
            core.resume(slot, index, &def, now, fx)
        } else {
            let key = core.sessions.open(slot, def);
            if let Some(sub) = core.subs.get_mut(slot as usize) {
                sub.work().sessions.push(key.index);
            }
            key
        };
        core.tell_gap(slot, fx);
        core.wake(slot, fx);
        Ok(Connected { session, resumed: resumed.is_some(), fenced })
    }

    /// The connection is lost. Leases wait for the same session to come back, as long as the grace; then they end and
    /// their messages go again at once, uncounted but for every third loss of a message. So does a lease whose time ends
    /// in the grace.
    pub fn disconnect(&mut self, session: SessionKey, now: Now, fx: &mut impl Effects) {
        let core = &mut self.core;
        let due = now.mono_after(core.config.session_grace);
        let Some(s) = core.sessions.get_mut(session).filter(|s| s.connected) else { return };
        s.connected = false;
        s.kicked = false;
        let slot = s.slot;
        core.timers.add(due, Wakes::Session(session.index, session.generation));
        core.stop_reading(slot, session.index);
        core.wake(slot, fx);
    }

    /// The consumer leaves: its leases end at once and are not counted. An ephemeral subscription goes with its last
    /// session.
    pub fn leave(&mut self, session: SessionKey, now: Now, fx: &mut impl Effects) {
        if self.core.sessions.get(session).is_some() {
            self.core.end_session(session.index, Ending::Left, now, fx);
        }
        self.tidy(fx);
    }

    /// Changes what may be with a session at once. A window smaller than what is leased takes nothing back.
    pub fn credit(&mut self, session: SessionKey, credit: Credit, _now: Now, fx: &mut impl Effects) {
        let Some(s) = self.core.sessions.get_mut(session) else { return };
        s.window.credit = credit;
        let slot = s.slot;
        self.core.wake(slot, fx);
    }
}

impl Core {
    /// Ends a session whose grace is over.
    pub(crate) fn grace_over(&mut self, index: u32, generation: u32, now: Now, fx: &mut impl Effects) {
        if self.sessions.get(SessionKey { index, generation }).is_some_and(|s| !s.connected) {
            self.end_session(index, Ending::Lost, now, fx);
        }
    }

    fn resume(&mut self, slot: u32, index: u32, def: &SessionDef, now: Now, fx: &mut impl Effects) -> SessionKey {
        self.stop_reading(slot, index);
        let generation = self.sessions.next_generation();
        let mut arrived = def.resume_delivery.unwrap_or(0);
        if let Some(session) = self.sessions.at_mut(index) {
            session.generation = generation;
            session.incarnation = def.incarnation;
            session.window.credit = def.credit;
            session.window.wanted = 0;
            session.connected = true;
            session.kicked = false;
            arrived = arrived.min(session.delivered);
            session.delivered = arrived;
        }
        let mut ended: SmallVec<[_; 2]> = SmallVec::new();
        if let Some(work) = self.subs.get_mut(slot as usize).and_then(|s| s.work.as_mut())
            && !planted(Bug::ResumeForgets)
        {
            work.leases.end_after(index, arrived, |e| ended.push(e));
        }
        self.bring_back(slot, &ended, Failure::Released, now, fx);
        SessionKey { index, generation }
    }

    fn end_session(&mut self, index: u32, how: Ending, now: Now, fx: &mut impl Effects) {
        let Some(slot) = self.sessions.at(index).map(|s| s.slot) else { return };
        self.stop_reading(slot, index);
        let mut ended: SmallVec<[_; 2]> = SmallVec::new();
        if let Some(sub) = self.subs.get_mut(slot as usize) {
            let work = sub.work();
            work.leases.end(0..Seq::MAX, |run, e| {
                if run.session == index {
                    ended.push(e);
                }
                run.session == index
            });
            work.sessions.retain(|i| *i != index);
        }
        let failure = if how == Ending::Lost { Failure::Lost } else { Failure::Released };
        self.bring_back(slot, &ended, failure, now, fx);
        self.sessions.remove(index);
        let Some(sub) = self.subs.get_mut(slot as usize) else { return };
        if sub.def.ephemeral && sub.work.as_ref().is_none_or(|w| w.sessions.is_empty()) {
            self.ended.push(sub.def.id);
            return;
        }
        sub.rest();
        self.wake(slot, fx);
    }

    /// Takes a read back from a session that will not commit it.
    fn stop_reading(&mut self, slot: u32, index: u32) {
        if let Some(work) = self.subs.get_mut(slot as usize).and_then(|s| s.work.as_mut())
            && work.reading.is_some_and(|r| r.session == index)
        {
            work.reading = None;
        }
    }
}
