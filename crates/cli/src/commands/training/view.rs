//! What a run's picture shows, in whatever room there is.

use std::collections::{BTreeMap, VecDeque};

use indicatif::{HumanCount, HumanDuration};
use openelm_train::data::Counts;
use openelm_train::run::{Event, StepEntry};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};

use super::Outline;
use super::lines::Clock;
use super::summary::Smoothed;

/// Points of a curve; when there are more, every other one goes.
const POINTS: usize = 1024;
/// Lines of news that are kept.
const NEWS: usize = 50;
/// Colours of the losses.
const LOSS: Color = Color::DarkGray;
const SMOOTHED: Color = Color::Cyan;
/// Colours of the validation corpora, in the order of their names.
const VALIDATION: [Color; 4] = [Color::Red, Color::Green, Color::Magenta, Color::Yellow];
/// Most corpora, and most sources, of which there is a line of numbers.
const LISTED: usize = 4;
/// Least lines in which a curve can be seen.
const CHART: u16 = 8;
/// Lines of news where there is little room and where there is more: from so many lines on.
const NEWS_LINES: [u16; 2] = [3, 8];
const TALL: u16 = 30;
/// Most numbers beside each other.
const COLUMNS: usize = 4;
/// Width of what a number is called, with a space behind.
const LABEL: usize = 15;

/// What is to be seen.
pub struct View {
    output: String,
    model: String,
    clock: Clock,
    /// Operations of a token forward and backward, over the operations per second of the machine.
    share_per_token: f64,
    /// The same operations over the parameters that a token meets.
    operations: f64,
    /// What is done before the run begins.
    preparing: Option<String>,
    peak: f64,
    last: Option<StepEntry>,
    smoothed: Smoothed,
    losses: Curve,
    smooth: Curve,
    /// Of each validation corpus.
    validation: BTreeMap<String, Curve>,
    /// Each source of the corpus, and what was read of it.
    sources: Vec<(String, Counts)>,
    news: VecDeque<String>,
    pub stopping: bool,
}

impl View {
    pub fn new(outline: &Outline, peak: f64) -> Self {
        Self {
            output: outline.output.display().to_string(),
            model: String::new(),
            clock: Clock::new(),
            share_per_token: 0.0,
            preparing: None,
            operations: outline.operations,
            peak,
            last: None,
            smoothed: Smoothed::default(),
            losses: Curve::default(),
            smooth: Curve::default(),
            validation: BTreeMap::new(),
            sources: outline.sources.iter().map(|source| (source.clone(), Counts::default())).collect(),
            news: VecDeque::new(),
            stopping: false,
        }
    }

    /// Adds a line to the news.
    pub fn say(&mut self, line: &str) {
        self.news.push_back(line.to_owned());
    }

    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Preparing { what, done, of } => {
                let of = of.map_or_else(String::new, |of| format!(" of {of}"));
                self.preparing = Some(format!("{what}: {done}{of}"));
            }
            Event::Started { config, step, steps, .. } => {
                self.preparing = None;
                self.clock.start(*step, *steps);
                self.model =
                    format!("{:.1} M parameters in {} layers", config.parameters() as f64 / 1e6, config.layers.len());
                // The embedding computes nothing, unless it is the output projection as well.
                let idle = if config.tied_embeddings { 0 } else { config.embedding_parameters() };
                self.share_per_token = self.operations * (config.parameters() - idle) as f64 / self.peak;
            }
            Event::Step(entry) => {
                self.losses.add(entry.step as f64, entry.loss);
                self.smooth.add(entry.step as f64, self.smoothed.add(entry.loss));
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
            Event::RecipeChanged { .. }
            | Event::LogMended { .. }
            | Event::Prepared(_)
            | Event::Measured(_)
            | Event::Sampled(_)
            | Event::Saved(_) => {}
        }
        self.news.extend(event.described());
        let surplus = self.news.len().saturating_sub(NEWS);
        self.news.drain(..surplus);
    }

    /// Numbers go before the curve, the curve before the news, and the news before what was read: where there is little room,
    /// there are fewer things, and nothing is cut so that it reads as something else.
    pub fn render(&self, frame: &mut Frame) {
        let area = frame.area();
        let numbers = self.numbers();
        let columns = columns(&numbers, area.width);
        let mut room = area.height.saturating_sub(1);
        let mut take = |wanted: u16, least: u16| {
            let taken = if room < least { 0 } else { wanted.min(room) };
            room -= taken;
            taken
        };
        let height = take(1 + numbers.len().div_ceil(columns) as u16, 2);
        let chart = take(CHART, CHART);
        let news = take(if area.height < TALL { NEWS_LINES[0] } else { NEWS_LINES[1] }, 2);
        let data = 1 + self.sources.len().min(LISTED) as u16;
        let data = take(data, data);
        let news = if chart > 0 { Constraint::Length(news) } else { Constraint::Min(news) };
        let chart = if chart > 0 { Constraint::Min(chart) } else { Constraint::Length(0) };
        let rows = [chart, Constraint::Length(height), Constraint::Length(data), Constraint::Length(1), news];
        let [chart, number_area, data, progress, news] = Layout::vertical(rows).areas(area);
        if !chart.is_empty() {
            self.render_chart(frame, chart);
        }
        render_numbers(frame, number_area, &numbers, columns);
        if !data.is_empty() {
            self.render_data(frame, data);
        }
        self.render_progress(frame, progress);
        self.render_news(frame, news);
    }

    fn render_chart(&self, frame: &mut Frame, area: Rect) {
        let training = [("loss", LOSS, &self.losses.points[..]), ("smoothed", SMOOTHED, &self.smooth.points)];
        let validation = self.validation.iter().zip(VALIDATION.into_iter().cycle());
        let validation = validation.map(|((name, curve), colour)| (name.as_str(), colour, &curve.points[..]));
        let points = || {
            let curves = self.validation.values().chain([&self.losses, &self.smooth]);
            curves.flat_map(|curve| &curve.points).filter(|(_, loss)| loss.is_finite())
        };
        let (first, last) =
            (self.losses.points.first().map_or(0.0, |p| p.0), points().map(|p| p.0).fold(1.0, f64::max));
        let high = points().map(|p| p.1).fold(0.0, f64::max);
        let low = points().map(|p| p.1).fold(high, f64::min);
        let margin = 0.05 * (high - low).max(0.1);
        let (low, high) = ((low - margin).max(0.0), high + margin);
        let lines = training.into_iter().map(|curve| (GraphType::Line, curve));
        let sets = lines.chain(validation.map(|curve| (GraphType::Scatter, curve)));
        let sets = sets.map(|(kind, (name, colour, points))| {
            let set = Dataset::default().name(name).marker(Marker::Braille).graph_type(kind);
            set.style(Style::new().fg(colour)).data(points)
        });
        let title = fit(&format!("{}  {}", self.output, self.model), usize::from(area.width.saturating_sub(2)));
        let x = Axis::default().bounds([first, last]).labels([format!("{first:.0}"), format!("{last:.0}")]);
        let y = Axis::default().bounds([low, high]).labels([format!("{low:.2}"), format!("{high:.2}")]);
        let chart = Chart::new(sets.collect()).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
        // Where there is less room, the numbers below have the same colours.
        let legend = (Constraint::Percentage(40), Constraint::Percentage(70));
        frame.render_widget(chart.hidden_legend_constraints(legend), area);
    }

    /// What each number is called, what it is, and the colour of its curve.
    fn numbers(&self) -> Vec<(String, String, Color)> {
        let Some(entry) = self.last else { return Vec::new() };
        let rate = entry.tokens_per_second;
        let number = |label: &str, value: String| (label.to_owned(), value, Color::Reset);
        let mut numbers = vec![
            ("loss".to_owned(), format!("{:.4}", entry.loss), LOSS),
            ("smoothed".to_owned(), format!("{:.4}", self.smoothed.mean()), SMOOTHED),
        ];
        let measured = self.validation.iter().zip(VALIDATION).take(LISTED);
        numbers.extend(measured.filter_map(|((name, curve), colour)| {
            Some((fit(name, LABEL - 1), format!("{:.4}", curve.last?.1), colour))
        }));
        numbers.extend([
            number("learning rate", format!("{:.3e}", entry.lr)),
            number("gradient norm", format!("{:.3}", entry.gradient_norm)),
            number("tokens/s", format!("{rate:.0}")),
            number("time left", HumanDuration(self.clock.left(entry.step)).to_string()),
            number("tokens", HumanCount(entry.tokens).to_string()),
            number("of f32 peak", format!("{:.0} %", 100.0 * rate * self.share_per_token)),
        ]);
        numbers
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
        let lines: Vec<Line> = lines.iter().map(|line| fit(line, usize::from(area.width)).into()).collect();
        frame.render_widget(Paragraph::new(lines).block(Block::new().title("read so far")), area);
    }

    fn render_progress(&self, frame: &mut Frame, area: Rect) {
        let step = self.last.map_or(0, |entry| entry.step);
        let state = match (self.stopping, &self.preparing) {
            (true, None) => "finishing this step and saving",
            (true, Some(_)) => "stopping",
            (false, _) => "Ctrl-C stops and saves",
        };
        let ratio = (step as f64 / self.clock.steps.max(1) as f64).clamp(0.0, 1.0);
        let steps = self.preparing.clone().unwrap_or_else(|| format!("step {step} of {}", self.clock.steps));
        let full = format!("{steps}  {state}");
        let label = if full.len() <= usize::from(area.width) { full } else { steps };
        let style = Style::new().fg(Color::Cyan);
        frame.render_widget(Gauge::default().ratio(ratio).label(label).gauge_style(style), area);
    }

    fn render_news(&self, frame: &mut Frame, area: Rect) {
        let room = usize::from(area.height.saturating_sub(1));
        if room == 0 {
            return;
        }
        let recent: Vec<&str> = self.news.iter().rev().take(room).rev().map(String::as_str).collect();
        let block = Block::new().title("news");
        frame.render_widget(Paragraph::new(recent.join("\n")).wrap(Wrap { trim: false }).block(block), area);
    }
}

/// How many numbers fit beside each other, each with a space behind it.
fn columns(numbers: &[(String, String, Color)], width: u16) -> usize {
    let widest = numbers.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or_default();
    (usize::from(width) / (LABEL + widest + 1)).clamp(1, COLUMNS)
}

fn render_numbers(frame: &mut Frame, area: Rect, numbers: &[(String, String, Color)], columns: usize) {
    let block = Block::new().borders(Borders::TOP);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let rows = numbers.len().div_ceil(columns).max(1);
    let areas = Layout::horizontal(vec![Constraint::Fill(1); columns]).split(inner);
    for (area, numbers) in areas.iter().zip(numbers.chunks(rows)) {
        let line = |(label, value, colour): &(String, String, Color)| {
            let label = format!("{label:<LABEL$}");
            let value = fit(value, usize::from(area.width).saturating_sub(LABEL));
            Line::from(vec![Span::styled(label, Style::new().fg(*colour)), Span::raw(value)])
        };
        frame.render_widget(Paragraph::new(numbers.iter().map(line).collect::<Vec<_>>()), *area);
    }
}

/// As much of `text` as fits, with a sign that something is missing.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
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
    use ratatui::Terminal;
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
        let sources = (0..sources).map(|i| format!("books/{i}.md")).collect();
        View::new(&Outline { output: "runs/tale".into(), every: 10, sources, operations: 6.0 }, peak)
    }

    #[test]
    fn everything_worth_knowing_is_on_the_screen() {
        let config = ModelConfig::openelm_270m();
        let mut view = view(2, 6.0 * config.parameters() as f64 * 2000.0);
        assert!(picture(&view, 100, 32).contains("runs/tale"), "before the first update");
        view.add(&Event::Started { config: &config, step: 0, steps: 200, from: None });
        (1..=100).for_each(|i| view.add(&step(i)));
        let read = |epochs, documents| Counts { epochs, documents, tokens: 5000, ..Counts::default() };
        view.add(&Event::Read(vec![read(2, 1234), read(0, 56)]));
        for (corpus, validation_loss) in [("books", 1.0), ("web", 2.5), ("web", 2.0)] {
            let corpus = corpus.to_owned();
            let (validation_tokens, validation_metrics) = (9, BTreeMap::new());
            let entry = ValidationEntry { step: 100, corpus, validation_loss, validation_tokens, validation_metrics };
            view.add(&Event::Validated(entry));
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
        for (width, height) in [(1, 1), (8, 3), (40, 2)] {
            picture(&view, width, height);
        }
    }

    #[test]
    fn in_little_room_there_is_less_but_no_number_is_cut() {
        let config = ModelConfig::openelm_270m();
        let mut view = view(2, 1e12);
        view.add(&Event::Started { config: &config, step: 0, steps: 200, from: None });
        let (lr, gradient_norm, tokens_per_second) = (2.4e-4, 123.456, 12_345.0);
        let (tokens, loss) = (1_234_567_890, 3.21);
        view.add(&Event::Step(StepEntry { step: 9, tokens, epoch: 0, loss, lr, gradient_norm, tokens_per_second }));
        let whole = ["2.400e-4", "123.456", "12345", "1,234,567,890", "3.2100", "step 9 of 200"];
        for (width, height) in [(60, 15), (40, 12), (45, 24), (80, 24), (200, 60)] {
            let text = picture(&view, width, height);
            for part in whole {
                assert!(text.contains(part), "{part:?} is not in:\n{text}");
            }
            let has_box = text.contains('┌');
            assert_eq!(has_box, height > 12, "a box is drawn where there is a curve in it:\n{text}");
        }
        // The legend.
        let text = picture(&view, 80, 24);
        assert!(text.matches("smoothed").count() == 2, "{text}");
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
