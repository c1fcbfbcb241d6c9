//! Where a session's state lies while nobody works with it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::OpenElmError;
use crate::channel::Channel;
use crate::model::Loader;

/// One session's place: its state can be lent to one caller at a time.
pub(crate) struct Slot {
    state: Mutex<State>,
    returned: Condvar,
    adapter: Option<String>,
}

enum State {
    /// Ready to go on.
    Live(Box<openelm::Session>),
    /// Its memory was given back; the tokens are what it takes to go on.
    Dormant(Vec<u32>),
    /// Lent to a short call, or to the generation behind the channel.
    Lent(Option<Arc<Channel>>),
}

impl Slot {
    pub(crate) fn new(session: openelm::Session, adapter: Option<String>) -> Arc<Self> {
        let state = Mutex::new(State::Live(Box::new(session)));
        Arc::new(Self { state, returned: Condvar::new(), adapter })
    }

    pub(crate) fn adapter(&self) -> Option<&String> {
        self.adapter.as_ref()
    }

    /// Borrows the session: for a short call, or for a generation that ends when `channel` says so.
    pub(crate) fn borrow(
        self: &Arc<Self>,
        loader: &Loader,
        channel: Option<Arc<Channel>>,
    ) -> Result<Lease, OpenElmError> {
        let mut state = self.state();
        while let State::Lent(to) = &*state {
            if to.as_ref().is_some_and(|channel| !channel.ends()) {
                return Err(OpenElmError::Busy);
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = std::mem::replace(&mut *state, State::Lent(channel));
        // Opening a model again takes its time; others wait for it as they wait for any short call.
        drop(state);
        let mut lease = Lease { slot: self.clone(), state: Some(taken) };
        if let Some(State::Dormant(tokens)) = &lease.state {
            let mut session = loader.session(self.adapter.as_ref())?;
            session.read_ids(tokens, || false)?;
            lease.state = Some(State::Live(Box::new(session)));
        }
        Ok(lease)
    }

    /// Lets go of the session's memory but for its tokens, if nobody works with it.
    pub(crate) fn make_dormant(&self) {
        let mut state = self.state();
        if let State::Live(session) = &*state {
            *state = State::Dormant(session.tokens().to_vec());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that is borrowed; it goes back when this is dropped.
pub(crate) struct Lease {
    slot: Arc<Slot>,
    state: Option<State>,
}

impl Deref for Lease {
    type Target = openelm::Session;

    fn deref(&self) -> &openelm::Session {
        match &self.state {
            Some(State::Live(session)) => session,
            _ => unreachable!("a lease is handed out with a live session"),
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut openelm::Session {
        match &mut self.state {
            Some(State::Live(session)) => session,
            _ => unreachable!("a lease is handed out with a live session"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            *self.slot.state() = state;
            self.slot.returned.notify_all();
        }
    }
}
