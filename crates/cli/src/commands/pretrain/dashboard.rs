//! A run as a live picture on the terminal. The terminal stays in its usual mode, so that Ctrl-C is what it always is.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, Stderr, stderr};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{HumanCount, HumanDuration};
use openelm_train::Recipe;
use openelm_train::data::Counts;
use openelm_train::run::{Event, StepEntry};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};
use ratatui::{Frame, Terminal};

use super::lines::{Clock, describe};

/// Time between two pictures.
const REFRESH: Duration = Duration::from_millis(100);
/// Points of a curve; when there are more, every other one goes.
const POINTS: usize = 1024;
/// Lines of news that are kept.
const NEWS: usize = 50;
/// Colours of the validation corpora, in the order of their names.
const VALIDATION: [Color; 4] = [Color::Red, Color::Green, Color::Magenta, Color::Yellow];
/// Most corpora, and most sources, of which there is a line of numbers.
const LISTED: usize = 4;
/// What a new loss weighs in the smoothed one, once there are enough of them.
const SMOOTHING: f64 = 0.02;

/// Whether the terminal is taken; locked while a picture is drawn, so that nothing comes in between.
static TAKEN: Mutex<bool> = Mutex::new(false);

fn taken() -> MutexGuard<'static, bool> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the terminal back as it was, once; nothing is drawn any more.
pub fn restore() {
    if std::mem::take(&mut *taken()) {
        leave();
    }
}

fn leave() {
    // Nobody is left to tell if even this fails.
    let _ = execute!(stderr(), LeaveAlternateScreen, Show);
}

/// Draws on the terminal until it is dropped.
pub struct Dashboard {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    view: View,
    stop: Arc<AtomicBool>,
    drawn: Instant,
}

impl Dashboard {
    /// Takes the terminal; `peak` is what the machine can do at best, in f32 operations per second.
    pub fn open(recipe: &Recipe, peak: f64, stop: Arc<AtomicBool>) -> Result<Self> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // The thread that panics may itself be drawing.
            if TAKEN.try_lock().is_ok() {
                restore()
            } else {
                leave()
            }
            hook(info);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::new(stderr()))).context("the terminal")?;
        *taken() = true;
        execute!(stderr(), EnterAlternateScreen, Hide).context("the terminal")?;
        let view = View::new(recipe, peak);
        Ok(Self { terminal, view, stop, drawn: Instant::now() })
    }

    /// Adds a line to the news.
    pub fn say(&mut self, line: &str) {
        self.view.news.push_back(line.to_owned());
    }

    pub fn show(&mut self, event: &Event) {
        self.view.add(event);
        self.view.stopping = self.stop.load(Ordering::Relaxed);
        if !matches!(event, Event::Step(_)) || self.drawn.elapsed() >= REFRESH {
            let taken = taken();
            if *taken {
                // A terminal that is gone is no reason to lose a run.
                let _ = self.terminal.draw(|frame| self.view.render(frame));
            }
            self.drawn = Instant::now();
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        restore();
    }
}

/// What is to be seen.
struct View {
    output: String,
    model: String,
    clock: Clock,
    /// Operations of a token forward and backward, over the operations per second of the machine.
    share_per_token: f64,
    peak: f64,
    last: Option<StepEntry>,
    smoothed: Option<f64>,
    losses: Curve,
    smooth: Curve,
    /// Of each validation corpus.
    validation: BTreeMap<String, Curve>,
    /// Each source of the corpus, and what was read of it.
    sources: Vec<(String, Counts)>,
    news: VecDeque<String>,
    stopping: bool,
}

impl View {
    fn new(recipe: &Recipe, peak: f64) -> Self {
        Self {
            output: recipe.output.display().to_string(),
            model: String::new(),
            clock: Clock::new(recipe.train.steps),
            share_per_token: 0.0,
            peak,
            last: None,
            smoothed: None,
            losses: Curve::default(),
            smooth: Curve::default(),
            validation: BTreeMap::new(),
            sources: recipe.data.sources.iter().map(|source| (source.path.clone(), Counts::default())).collect(),
            news: VecDeque::new(),
            stopping: false,
        }
    }

    fn add(&mut self, event: &Event) {
        match event {
            Event::Started { config, step, .. } => {
                self.clock.start(*step);
                self.model =
                    format!("{:.1} M parameters in {} layers", config.parameters() as f64 / 1e6, config.layers.len());
                // The embedding computes nothing, unless it is the output projection as well.
                let idle = if config.tied_embeddings { 0 } else { config.embedding_parameters() };
                self.share_per_token = 6.0 * (config.parameters() - idle) as f64 / self.peak;
            }
            Event::Step(entry) => {
                let weight = (1.0 / (self.losses.seen + 1) as f64).max(SMOOTHING);
                let mean = self.smoothed.map_or(entry.loss, |mean| mean + weight * (entry.loss - mean));
                self.smoothed = Some(mean);
                self.losses.add(entry.step as f64, entry.loss);
                self.smooth.add(entry.step as f64, mean);
                self.last = Some(*entry);
            }
            Event::Read(counts) => {
                for ((_, known), counts) in self.sources.iter_mut().zip(counts) {
                    *known = *counts;
                }
            }
            Event::Validated(entry) => {
                let curve = self.validation.entry(entry.corpus.clone()).or_default();
                curve.add(entry.step as f64, entry.validation_loss);
            }
            Event::LogMended { .. } | Event::Measured(_) | Event::Sampled(_) | Event::Saved(_) => {}
        }
        self.news.extend(describe(event));
        let surplus = self.news.len().saturating_sub(NEWS);
        self.news.drain(..surplus);
    }

    fn render(&self, frame: &mut Frame) {
        let listed = |count: usize| count.min(LISTED) as u16;
        let rows = [
            Constraint::Min(8),
            Constraint::Length(4 + listed(self.validation.len()).max(2)),
            Constraint::Length(1 + listed(self.sources.len())),
            Constraint::Length(1),
            Constraint::Max(8),
        ];
        let [chart, numbers, data, progress, news] = Layout::vertical(rows).areas(frame.area());
        self.render_chart(frame, chart);
        self.render_numbers(frame, numbers);
        self.render_data(frame, data);
        self.render_progress(frame, progress);
        let room = usize::from(news.height.saturating_sub(1));
        let recent: Vec<&str> = self.news.iter().rev().take(room).rev().map(String::as_str).collect();
        let block = Block::new().title("news");
        frame.render_widget(Paragraph::new(recent.join("\n")).wrap(Wrap { trim: false }).block(block), news);
    }

    fn render_chart(&self, frame: &mut Frame, area: Rect) {
        let training =
            [("loss", Color::DarkGray, &self.losses.points[..]), ("smoothed", Color::Cyan, &self.smooth.points)];
        let colours = VALIDATION.into_iter().cycle();
        let validation = self
            .validation
            .iter()
            .zip(colours)
            .map(|((name, curve), colour)| (name.as_str(), colour, &curve.points[..]));
        let points = || {
            let curves = self.validation.values().chain([&self.losses, &self.smooth]);
            curves.flat_map(|curve| &curve.points).filter(|(_, loss)| loss.is_finite())
        };
        let (first, last) =
            (self.losses.points.first().map_or(0.0, |p| p.0), points().map(|p| p.0).fold(1.0, f64::max));
        let high = points().map(|p| p.1).fold(0.0, f64::max);
        let low = points().map(|p| p.1).fold(high, f64::min);
        let margin = 0.05 * (high - low).max(0.1);
        let (low, high) = (low - margin, high + margin);
        let lines = training.into_iter().map(|curve| (GraphType::Line, curve));
        let sets = lines.chain(validation.map(|curve| (GraphType::Scatter, curve)));
        let sets = sets.map(|(kind, (name, colour, points))| {
            let set = Dataset::default().name(name).marker(Marker::Braille).graph_type(kind);
            set.style(Style::new().fg(colour)).data(points)
        });
        let title = format!("{}  {}", self.output, self.model);
        let x = Axis::default().bounds([first, last]).labels([format!("{first:.0}"), format!("{last:.0}")]);
        let y = Axis::default().bounds([low, high]).labels([format!("{low:.2}"), format!("{high:.2}")]);
        let chart = Chart::new(sets.collect()).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
        frame.render_widget(chart, area);
    }

    fn render_numbers(&self, frame: &mut Frame, area: Rect) {
        let Some(entry) = self.last else { return };
        let rate = entry.tokens_per_second;
        let mut losses = vec![
            format!("loss           {:.4}", entry.loss),
            format!("smoothed       {:.4}", self.smoothed.unwrap_or_default()),
        ];
        let measured = self.validation.iter().take(LISTED);
        losses.extend(measured.filter_map(|(name, curve)| Some(format!("{name:<14.14} {:.4}", curve.last?.1))));
        let update = [
            format!("learning rate  {:.3e}", entry.lr),
            format!("gradient norm  {:.3}", entry.gradient_norm),
            format!("tokens         {}", HumanCount(entry.tokens)),
        ];
        let pace = [
            format!("tokens/s       {rate:.0}"),
            format!("of f32 peak    {:.0} %", 100.0 * rate * self.share_per_token),
            format!("time left      {}", HumanDuration(self.clock.left(entry.step))),
        ];
        let thirds = Layout::horizontal([Constraint::Ratio(1, 3); 3]).split(area);
        for (area, lines) in thirds.iter().zip([&losses[..], &update, &pace]) {
            frame.render_widget(Paragraph::new(lines.join("\n")).block(Block::bordered()), *area);
        }
    }

    /// Where the run is in each source of its corpus.
    fn render_data(&self, frame: &mut Frame, area: Rect) {
        let line = |(path, counts): &(String, Counts)| {
            let Counts { epochs, documents, tokens, .. } = counts;
            format!("epoch {epochs}, {} documents, {} tokens  {path}", HumanCount(*documents), HumanCount(*tokens))
        };
        let shown = if self.sources.len() > LISTED { LISTED - 1 } else { LISTED };
        let mut lines: Vec<String> = self.sources.iter().take(shown).map(line).collect();
        if self.sources.len() > shown {
            lines.push(format!("and {} more sources", self.sources.len() - shown));
        }
        frame.render_widget(Paragraph::new(lines.join("\n")).block(Block::new().title("read so far")), area);
    }

    fn render_progress(&self, frame: &mut Frame, area: Rect) {
        let step = self.last.map_or(0, |entry| entry.step);
        let state = if self.stopping { "finishing this step and saving" } else { "Ctrl-C stops and saves" };
        let ratio = (step as f64 / self.clock.steps.max(1) as f64).clamp(0.0, 1.0);
        let label = format!("step {step} of {}  {state}", self.clock.steps);
        let style = Style::new().fg(Color::Cyan);
        frame.render_widget(Gauge::default().ratio(ratio).label(label).gauge_style(style), area);
    }
}

/// A curve of no more than [`POINTS`] points, however long the run.
struct Curve {
    points: Vec<(f64, f64)>,
    /// One point in so many is kept.
    every: u64,
    seen: u64,
    /// Whether it is kept or not.
    last: Option<(f64, f64)>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), every: 1, seen: 0, last: None }
    }
}

impl Curve {
    fn add(&mut self, x: f64, y: f64) {
        if self.seen.is_multiple_of(self.every) {
            self.points.push((x, y));
        }
        self.seen += 1;
        self.last = Some((x, y));
        if self.points.len() == POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use openelm_model::ModelConfig;
    use openelm_train::run::ValidationEntry;
    use ratatui::backend::TestBackend;

    use super::*;

    fn picture(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.render(frame)).unwrap();
        terminal.backend().to_string()
    }

    fn step(step: u64) -> Event<'static> {
        let loss = 8.0 / (step as f64).sqrt();
        let (lr, gradient_norm, tokens_per_second) = (1e-3, 1.5, 1000.0);
        Event::Step(StepEntry { step, tokens: 32 * step, epoch: 2, loss, lr, gradient_norm, tokens_per_second })
    }

    fn view(sources: usize, peak: f64) -> View {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        let sources: String = (0..sources).map(|i| format!("{{ path = \"books/{i}.md\" }},")).collect();
        let recipe = format!(
            "output = \"runs/tale\"\ndata = {{ sources = [{sources}] }}\nmodel = {{}}\ntokenizer = {{ path = \"t\" }}\n\
             train = {{ sequence_length = 8, batch_size = 4, steps = 200 }}\n\
             schedule = {{ max_lr = 1e-3, warmup_steps = 0 }}\n"
        );
        std::fs::write(&path, recipe).unwrap();
        View::new(&Recipe::load(&path, &[]).unwrap(), peak)
    }

    #[test]
    fn everything_worth_knowing_is_on_the_screen() {
        let config = ModelConfig::openelm_270m();
        let mut view = view(2, 6.0 * config.parameters() as f64 * 2000.0);
        assert!(picture(&view, 100, 32).contains("runs/tale"), "before the first update");
        view.add(&Event::Started { config: &config, step: 0, from: None });
        (1..=100).for_each(|i| view.add(&step(i)));
        let read = |epochs, documents| Counts { epochs, documents, tokens: 5000, ..Counts::default() };
        view.add(&Event::Read(vec![read(2, 1234), read(0, 56)]));
        for (corpus, validation_loss) in [("books", 1.0), ("web", 2.5), ("web", 2.0)] {
            let corpus = corpus.to_owned();
            view.add(&Event::Validated(ValidationEntry { step: 100, corpus, validation_loss, validation_tokens: 9 }));
        }
        let text = picture(&view, 100, 32);
        for part in [
            "271.5 M parameters",
            "loss           0.8000",
            "gradient norm  1.500",
            "of f32 peak    50 %",
            "learning rate  1.000e-3",
            "books          1.0000",
            "web            2.0000",
            "tokens         3,200",
            "epoch 2, 1,234 documents, 5,000 tokens  books/0.md",
            "epoch 0, 56 documents, 5,000 tokens  books/1.md",
            "time left",
            "step 100 of 200",
            "step 100: loss on books 1.0000, perplexity 2.72",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert_eq!(view.validation["web"].points, [(100.0, 2.5), (100.0, 2.0)]);
        view.stopping = true;
        assert!(picture(&view, 100, 32).contains("finishing this step and saving"));
        picture(&view, 8, 3);
    }

    #[test]
    fn of_many_sources_some_are_listed() {
        let text = picture(&view(9, 1.0), 100, 32);
        assert!(text.contains("books/2.md") && !text.contains("books/3.md"), "{text}");
        assert!(text.contains("and 6 more sources"), "{text}");
    }

    #[test]
    fn a_long_run_keeps_the_shape_of_its_curve_in_little_memory() {
        let mut curve = Curve::default();
        (0..1_000_000).for_each(|i| curve.add(f64::from(i), 1.0));
        assert!(curve.points.len() < POINTS && curve.points.len() >= POINTS / 2);
        assert!(curve.points[0].0 == 0.0 && curve.points.last().unwrap().0 > 990_000.0);
        assert!(curve.points.is_sorted_by(|a, b| a.0 < b.0));
    }
}
