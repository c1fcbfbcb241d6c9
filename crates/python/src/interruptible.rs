//! Long work on a thread of its own, while Python listens to it and looks after Ctrl-C.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use openelm_ffi::guard;
use pyo3::prelude::*;

use crate::error::Failure;

/// How often a wait looks after Ctrl-C.
pub const SIGNALS: Duration = Duration::from_millis(100);

/// Does `work`, which tells by the channel how it gets on, and tells it on to `hear`; other Python threads run meanwhile. Ctrl-C, or
/// an exception of `hear`, asks `work` to stop by its flag, and is raised once it has; with what went wrong on the way there, if
/// something did, as its cause.
pub fn interruptible<T: Send, M: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool, &SyncSender<M>) -> Result<T, Failure> + Send,
    mut hear: impl FnMut(Python<'_>, M) -> PyResult<()> + Send,
) -> PyResult<T> {
    let stop = &AtomicBool::new(false);
    let (result, raised) = py.detach(|| {
        thread::scope(|scope| {
            // Who tells waits until it is heard, so that an interruption is not overtaken by much work.
            let (send, receive) = sync_channel(0);
            let worker = scope.spawn(move || guard(|| Ok(work(stop, &send))));
            let mut raised = Ok(());
            loop {
                let message = match receive.recv_timeout(SIGNALS) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                // What is told on the way to the end finds nobody who wants to hear it.
                if raised.is_ok() {
                    raised = Python::attach(|py| {
                        message.map_or(Ok(()), |message| hear(py, message))?;
                        py.check_signals()
                    });
                    stop.store(raised.is_err(), Ordering::SeqCst);
                }
            }
            (worker.join().unwrap_or_else(|panic| resume_unwind(panic)), raised)
        })
    });
    let result = result.map_err(Failure::from).flatten();
    match (raised, result) {
        (Err(raised), Err(failure)) => {
            raised.set_cause(py, Some(failure.raised(py)));
            Err(raised)
        }
        (Err(raised), _) => Err(raised),
        (Ok(()), result) => result.map_err(|failure| failure.raised(py)),
    }
}
