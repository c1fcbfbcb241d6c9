//! The terminal while there is a picture on it: another screen without a cursor, on which nothing that is typed shows. Ctrl-C and
//! Ctrl-Z are what they always are.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, size};

/// The least room in which a picture says more than lines do.
const LEAST: (u16, u16) = (40, 10);

/// Whether the terminal is taken, and how it was before; locked while a picture is drawn, so that nothing comes in between.
static TAKEN: Mutex<Option<modes::Modes>> = Mutex::new(None);

/// Set while the process is about to be suspended: it must not take the terminal again before it is.
static SUSPENDED: AtomicBool = AtomicBool::new(false);

fn taken() -> MutexGuard<'static, Option<modes::Modes>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a picture can be drawn at all: on a terminal that understands more than lines and has room.
pub fn is_able() -> bool {
    let understands = std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb");
    let has_room = size().is_ok_and(|(width, height)| width >= LEAST.0 && height >= LEAST.1);
    stderr().is_terminal() && (understands || cfg!(windows)) && has_room && modes::is_ours()
}

/// Calls `draw` with the terminal taken, and says whether it was taken just now; a terminal that belongs to another job, as after
/// Ctrl-Z and `bg`, is left alone.
pub fn draw_on(draw: impl FnOnce(bool)) {
    let mut taken = taken();
    if SUSPENDED.load(Ordering::SeqCst) || !modes::is_ours() {
        return;
    }
    let is_new = taken.is_none();
    if is_new {
        *taken = Some(modes::Modes::set());
        // A terminal that is gone is no reason to lose a run.
        let _ = execute!(stderr(), EnterAlternateScreen, Hide);
    }
    draw(is_new);
}

/// Gives the terminal back as it was, once, until the next picture.
pub fn give_back() {
    if let Some(modes) = taken().take() {
        leave(&modes);
    }
}

/// Gives the terminal back for as long as `suspend` takes.
#[cfg(unix)]
pub fn away(suspend: impl FnOnce()) {
    SUSPENDED.store(true, Ordering::SeqCst);
    give_back();
    suspend();
    SUSPENDED.store(false, Ordering::SeqCst);
}

/// Gives the terminal back from a thread that panics, which may itself be drawing.
pub fn give_back_now() {
    if let Ok(mut taken) = TAKEN.try_lock() {
        if let Some(modes) = taken.take() {
            leave(&modes);
        }
    } else {
        // Nobody is left to tell if even this fails.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    }
}

fn leave(modes: &modes::Modes) {
    let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    modes.restore();
}

#[cfg(unix)]
mod modes {
    use std::io::stderr;

    use rustix::process::getpgrp;
    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

    /// How the terminal was.
    pub struct Modes(Option<Termios>);

    impl Modes {
        /// Shows nothing of what is typed.
        pub fn set() -> Self {
            let before = tcgetattr(stderr()).ok();
            if let Some(mut modes) = before.clone() {
                modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON);
                // Without it the picture is only less tidy.
                let _ = tcsetattr(stderr(), OptionalActions::Now, &modes);
            }
            Self(before)
        }

        /// What was typed meanwhile was meant for nobody.
        pub fn restore(&self) {
            if let Some(modes) = &self.0 {
                let _ = tcsetattr(stderr(), OptionalActions::Flush, modes);
            }
        }
    }

    /// Whether this process is in the foreground: another one may neither draw nor change modes.
    pub fn is_ours() -> bool {
        tcgetpgrp(stderr()).is_ok_and(|group| group == getpgrp())
    }
}

#[cfg(not(unix))]
mod modes {
    /// How the terminal was.
    pub struct Modes;

    impl Modes {
        pub fn set() -> Self {
            Self
        }

        pub fn restore(&self) {}
    }

    pub fn is_ours() -> bool {
        true
    }
}
