//! How far an evaluation is: a bar on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use openelm_eval::Progress;

use crate::tell;

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(30);

pub struct Display {
    bar: ProgressBar,
    begin: Instant,
    told: Cell<Instant>,
}

impl Display {
    pub fn new() -> Self {
        let bar = if stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %  {eta} left");
        let bar = match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let now = Instant::now();
        Self { bar, begin: now, told: Cell::new(now) }
    }

    pub fn show(&self, progress: Progress<'_>) {
        let Progress { task, done, of, tokens } = progress;
        let rate = tokens as f64 / self.begin.elapsed().as_secs_f64().max(1e-9);
        if !self.bar.is_hidden() {
            self.bar.set_length(of);
            self.bar.set_message(format!("{task}, {rate:.0} tokens/s"));
            self.bar.set_position(done);
        } else if self.told.get().elapsed() > PAUSE && done > 0 {
            self.told.set(Instant::now());
            let left = self.begin.elapsed().mul_f64((of - done.min(of)) as f64 / done as f64);
            let share = 100 * done / of.max(1);
            tell(format!("{task}: {share} %, {rate:.0} tokens/s, {} left", HumanDuration(left)));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Says what it took.
    pub fn finish(&self, tokens: usize) {
        self.clear();
        let time = self.begin.elapsed();
        let rate = tokens as f64 / time.as_secs_f64().max(1e-9);
        tell(format!("{tokens} tokens through the model in {:.1} s, {rate:.0} per second", time.as_secs_f64()));
    }
}
