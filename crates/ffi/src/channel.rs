//! Between the thread that generates and whoever reads: a few pieces, and the wish to pause or stop.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::OpenElmError;
use crate::generation::{Finish, Piece};

/// Pieces that may wait to be read: the thread computes the next ones meanwhile, and no more.
const ROOM: usize = 4;

#[derive(Default)]
pub(crate) struct Channel {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// Tokens of the pieces that were read.
    read: usize,
    paused: bool,
    cancelled: bool,
    /// Whether the thread is through.
    ended: bool,
    finish: Option<Finish>,
    error: Option<OpenElmError>,
}

impl State {
    fn is_ready(&self) -> bool {
        !self.pieces.is_empty() || self.ended || self.cancelled
    }
}

/// What the thread does.
impl Channel {
    /// Waits for room and for the end of a pause; `false` if nobody wants more.
    pub(crate) fn wait_for_room(&self) -> bool {
        !self.wait_while(|state| !state.cancelled && (state.paused || state.pieces.len() >= ROOM)).cancelled
    }

    pub(crate) fn push(&self, piece: Piece) {
        self.change(|state| state.pieces.push_back(piece));
    }

    /// Waits until all pieces were read; `false` if nobody wants them.
    pub(crate) fn wait_until_read(&self) -> bool {
        !self.wait_while(|state| !state.cancelled && !state.pieces.is_empty()).cancelled
    }

    /// Tokens of the pieces that were read.
    pub(crate) fn tokens_read(&self) -> usize {
        self.state().read
    }

    /// There is nothing more, and why.
    pub(crate) fn end(&self, end: Result<Finish, OpenElmError>) {
        self.change(|state| {
            state.ended = true;
            match end {
                Ok(finish) => state.finish = Some(finish),
                Err(error) => state.error = Some(error),
            }
        });
    }
}

/// What the reader does.
impl Channel {
    /// The next piece; `None` behind the last one, and once cancelled. An error comes once.
    pub(crate) fn next(&self) -> Result<Option<Piece>, OpenElmError> {
        let mut state = self.wait_while(|state| !state.is_ready());
        if state.cancelled {
            return Ok(None);
        }
        if let Some(piece) = state.pieces.pop_front() {
            state.read += piece.tokens.len();
            drop(state);
            self.changed.notify_all();
            return Ok(Some(piece));
        }
        state.error.take().map_or(Ok(None), Err)
    }

    /// Waits for something to read, up to `time`; whether there is.
    pub(crate) fn is_ready_within(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), time, |state| !state.is_ready());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_ready()
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.change(|state| state.paused = paused);
    }

    pub(crate) fn cancel(&self) {
        self.change(|state| state.cancelled = true);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Whether the thread is through, or will be as soon as it looks up from what it computes.
    pub(crate) fn ends(&self) -> bool {
        let state = self.state();
        state.cancelled || state.ended
    }

    /// Why it ended.
    pub(crate) fn finish(&self) -> Option<Finish> {
        let state = self.state();
        state.finish.or(state.cancelled.then_some(Finish::Cancelled))
    }

    /// Waits for the thread to be through.
    pub(crate) fn wait(&self) {
        drop(self.wait_while(|state| !state.ended));
    }
}

impl Channel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state(), condition).unwrap_or_else(PoisonError::into_inner)
    }
}
