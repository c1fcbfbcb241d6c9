//! A run as a live picture on the terminal.

use std::io::{BufWriter, Stderr, stderr};
use std::panic;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use openelm_train::run::Event;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::Outline;
use super::terminal;
use super::view::View;
use crate::interrupt::Stop;

/// Time between two pictures.
const REFRESH: Duration = Duration::from_millis(100);

/// Draws on the terminal until it is dropped.
pub struct Dashboard {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    view: View,
    stop: Stop,
    drawn: Instant,
}

impl Dashboard {
    /// Takes the terminal; `peak` is what the machine can do at best, in f32 operations per second.
    pub fn open(outline: &Outline, peak: f64) -> Result<Self> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            terminal::give_back_now();
            hook(info);
        }));
        let stop = Stop::listen(&suspension::SIGNALS, suspension::obey, terminal::give_back)?;
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::new(stderr()))).context("the terminal")?;
        let mut dashboard = Self { terminal, view: View::new(outline, peak), stop, drawn: Instant::now() };
        dashboard.draw();
        Ok(dashboard)
    }

    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Adds a line to the news.
    pub fn say(&mut self, line: &str) {
        self.view.say(line);
    }

    pub fn show(&mut self, event: &Event) {
        self.view.add(event);
        self.view.stopping = self.stop.is_raised();
        if !matches!(event, Event::Step(_)) || self.drawn.elapsed() >= REFRESH {
            self.draw();
        }
    }

    fn draw(&mut self) {
        terminal::draw_on(|is_new| {
            // A terminal that is gone is no reason to lose a run.
            if is_new {
                let _ = self.terminal.clear();
            }
            let _ = self.terminal.draw(|frame| self.view.render(frame));
        });
        self.drawn = Instant::now();
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        terminal::give_back();
    }
}

/// Ctrl-Z: the terminal is given back before the process stops, and taken again with the next picture.
#[cfg(unix)]
mod suspension {
    use signal_hook::consts::SIGTSTP;
    use signal_hook::low_level::emulate_default_handler;

    pub const SIGNALS: [i32; 1] = [SIGTSTP];

    pub fn obey(signal: i32) {
        if signal == SIGTSTP {
            super::terminal::away(|| drop(emulate_default_handler(SIGTSTP)));
        }
    }
}

#[cfg(not(unix))]
mod suspension {
    pub const SIGNALS: [i32; 0] = [];

    pub fn obey(_signal: i32) {}
}
