//! Ways to the bus whose faults a test commands: cut now, cut in the middle of what flows, hold, part.
//!
//! Faults are levels, not events: they hold for every connection of a network until they are taken back, so a test cannot
//! be too early or too late with them. [`Network::cut`] alone is an event: it ends the connections that are there.

use std::{
    io,
    sync::{Arc, Weak},
};

use acb_sdk::{
    ClientBuilder, Dialer, Endpoint,
    transport::{Dialing, Io},
};
use acb_server::Door;
use parking_lot::Mutex;

use crate::{
    bus::client,
    cable::{Cable, Cut},
};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the bus to the client.
    Down = 0,
    /// From the client to the bus.
    Up = 1,
}

/// What is wrong with a network.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: bool,
    parted: bool,
    /// Bytes until the next cut of its own, by way.
    left: [Option<usize>; 2],
    cables: Vec<Weak<Cut>>,
}

impl State {
    fn each(&mut self, act: impl Fn(&Cut)) {
        self.cables.retain(|cable| cable.upgrade().inspect(|cut| act(cut)).is_some());
    }
}

impl Faults {
    /// `None` when nothing passes now; else how many bytes do at most, if there is a bound.
    #[expect(clippy::option_option, reason = "closed, open without end, and open for so many bytes are three answers")]
    pub(crate) fn may_pass(&self, way: Way) -> Option<Option<usize>> {
        let state = self.0.lock();
        (!state.held).then(|| state.left[way as usize])
    }

    /// So many bytes passed under a bound: the connections end with the last of them.
    pub(crate) fn passed(&self, way: Way, bytes: usize) {
        let mut state = self.0.lock();
        let Some(left) = &mut state.left[way as usize] else { return };
        *left = left.saturating_sub(bytes);
        if *left == 0 {
            state.left[way as usize] = None;
            state.each(Cut::cut);
        }
    }

    fn cut(&self) {
        self.0.lock().each(Cut::cut);
    }
}

/// What all networks of a bus share: the way into the server that runs now.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    door: Mutex<Option<Door>>,
    networks: Mutex<Vec<Weak<Faults>>>,
}

impl Switch {
    pub(crate) fn open(&self, door: Door) {
        *self.door.lock() = Some(door);
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        *self.door.lock() = None;
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.networks.lock().retain(|network| network.upgrade().inspect(|faults| faults.cut()).is_some());
    }

    pub(crate) fn door(&self) -> Option<Door> {
        self.door.lock().clone()
    }
}

/// A way to the bus. Cheap to clone: clones are the same way. Made by [`FakeBus::network`](crate::FakeBus::network).
#[derive(Clone, Debug)]
pub struct Network {
    switch: Arc<Switch>,
    faults: Arc<Faults>,
    tenant: String,
}

impl Network {
    pub(crate) fn new(switch: &Arc<Switch>, tenant: &str) -> Self {
        let faults = Arc::new(Faults::default());
        let mut networks = switch.networks.lock();
        networks.retain(|network| network.strong_count() > 0);
        networks.push(Arc::downgrade(&faults));
        Self { switch: Arc::clone(switch), faults, tenant: tenant.to_owned() }
    }

    /// A client that comes this way, as an agent of the bus's tenant. Connect it.
    pub fn client(&self, agent: impl Into<String>) -> ClientBuilder {
        client(self.dialer(), &self.tenant, agent.into())
    }

    /// Opens connections this way: for [`ClientBuilder::dialer`].
    pub fn dialer(&self) -> Arc<dyn Dialer> {
        Arc::new(self.clone())
    }

    /// Ends the connections that are there, at once and without a word. New ones are let in.
    pub fn cut(&self) {
        self.faults.cut();
    }

    /// Ends the connections that are there when so many more bytes have gone one way: in the middle of a frame, if that
    /// is where they end.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        let mut state = self.faults.0.lock();
        state.left[way as usize] = Some(bytes.max(1));
        state.each(Cut::wake);
    }

    /// Ends the connections that are there and refuses new ones, until [`Self::mend`].
    pub fn part(&self) {
        self.faults.0.lock().parted = true;
        self.cut();
    }

    /// Nothing moves either way, and nothing is lost, until [`Self::mend`].
    pub fn hold(&self) {
        self.faults.0.lock().held = true;
    }

    /// Takes every fault back.
    pub fn mend(&self) {
        let mut state = self.faults.0.lock();
        (state.held, state.parted, state.left) = (false, false, [None, None]);
        state.each(Cut::wake);
    }
}

impl Dialer for Network {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Dialing<'a> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let door = self.switch.door().ok_or_else(refused)?;
            let cut = Arc::new(Cut::default());
            {
                let mut state = self.faults.0.lock();
                if state.parted {
                    return Err(refused());
                }
                // Before the pipe is there, so that a cut in between ends it, too.
                state.cables.retain(|cable| cable.strong_count() > 0);
                state.cables.push(Arc::downgrade(&cut));
            }
            let cable = Cable::new(door.connect()?, cut, Arc::clone(&self.faults));
            Ok(Box::new(cable) as Box<dyn Io>)
        })
    }
}
