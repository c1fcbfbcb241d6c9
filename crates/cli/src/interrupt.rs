//! Signals that ask a command to stop: Ctrl-C, and what `kill`, Slurm or a terminal that goes away send.
//!
//! A signal that was ignored when the command began stays ignored: that is what `nohup` is for.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::{Context, Result};

use crate::tell;

/// What the first signal raises; the second one leaves at once.
#[derive(Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

/// A command that was asked to stop, and did. What there was to say is said.
#[derive(Debug)]
pub struct Stopped {
    signal: i32,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by signal {}", self.signal)
    }
}

impl std::error::Error for Stopped {}

impl Stopped {
    /// The exit code that shells know: 130 after Ctrl-C. A script must not go on as if the work were done.
    pub fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.signal).unwrap_or(1)
    }
}

impl Stop {
    /// Says `what` at the first signal.
    pub fn saying(what: &'static str) -> Result<Self> {
        Self::listen(&[], move |_| tell(format!("\n{what}; once more to leave at once")), || ())
    }

    /// Calls `first` at the first signal, and `last` at the second one, before it leaves. Signals of `others` lead to `first` every
    /// time and stop nothing.
    pub fn listen(
        others: &[i32],
        first: impl Fn(i32) + Send + 'static,
        last: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let stop = Self::default();
        let (raised, others) = (stop.clone(), others.to_vec());
        signals::listen(&others.clone(), move |signal| {
            if others.contains(&signal) {
                return first(signal);
            }
            if raised.is_raised() {
                last();
                exit(128 + signal);
            }
            raised.signal.store(signal, Ordering::SeqCst);
            raised.flag.store(true, Ordering::SeqCst);
            first(signal);
        })?;
        Ok(stop)
    }

    /// Raised once a signal came.
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Behind the work that must not be torn: the next signal leaves at once.
    pub fn leave_at_once(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// # Errors
    /// If a signal came.
    pub fn check(&self) -> Result<(), Stopped> {
        match self.signal.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Stopped { signal }),
        }
    }
}

/// Leaves at the first signal, for work that leaves nothing half done; `last` is called before.
pub fn leave_on_interrupt(last: impl Fn() + Send + 'static) -> Result<()> {
    signals::listen(&[], move |signal| {
        last();
        exit(128 + signal);
    })
}

#[cfg(unix)]
mod signals {
    use std::thread;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    use super::{Context, Result};

    /// Calls `handler`, on a thread of its own, whenever one of `others` or one that asks to stop comes.
    pub fn listen(others: &[i32], handler: impl FnMut(i32) + Send + 'static) -> Result<()> {
        let all = [SIGINT, SIGTERM, SIGHUP].iter().chain(others);
        let heeded: Vec<i32> = all.copied().filter(|&signal| !is_ignored(signal)).collect();
        let mut signals = Signals::new(heeded).context("Ctrl-C cannot be caught")?;
        let wait = move || signals.forever().for_each(handler);
        thread::Builder::new().name("signals".to_owned()).spawn(wait).context("Ctrl-C cannot be caught")?;
        Ok(())
    }

    /// Whether this process was started with `signal` ignored.
    #[cfg(target_os = "linux")]
    fn is_ignored(signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
        mask >> (signal - 1) & 1 == 1
    }

    /// Whether this process was started with `signal` ignored, as far as can be told: a terminal that goes away concerns only
    /// who has one.
    #[cfg(not(target_os = "linux"))]
    fn is_ignored(signal: i32) -> bool {
        use std::io::{IsTerminal, stderr};
        signal == SIGHUP && !stderr().is_terminal()
    }
}

#[cfg(not(unix))]
mod signals {
    use super::{Context, Result};

    /// Calls `handler`, on a thread of its own, whenever Ctrl-C comes.
    pub fn listen(_others: &[i32], mut handler: impl FnMut(i32) + Send + 'static) -> Result<()> {
        ctrlc::set_handler(move || handler(2)).context("Ctrl-C cannot be caught")
    }
}
