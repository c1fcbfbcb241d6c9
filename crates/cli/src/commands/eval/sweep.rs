//! What quantising a model costs: its size, rate, perplexity, divergence and answers in several weight formats.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::HumanBytes;
use openelm_bench::{Source, Subject as Encoded};
use openelm_eval::{Earlier, Journal, Metric, Results, Selection, distinct, prepare, table as table_of};
use openelm_formats::{Comparison, StoredModel, compare};
use serde_json::{Value, json};

use super::progress::Display;
use super::{Arguments, sources, subject};
use crate::interrupt::Stop;
use crate::tell;

/// What was measured of one weight format.
struct Line {
    format: String,
    bytes: usize,
    tokens_per_second: f64,
    /// How far its logits are from the model's as it is; `None` for that itself.
    distance: Option<Comparison>,
    results: Results,
    /// Of each task and share the documents whose answer is another one than the model's as it is.
    flips: BTreeMap<(String, String), usize>,
}

/// Evaluates the model as it is and in each of the formats asked for.
pub fn run(arguments: &Arguments, selections: &[Selection]) -> Result<()> {
    let stop = Stop::saying("stopping; a sweep keeps nothing")?;
    let scratch = tempfile::tempdir().context("there is no temporary folder")?;
    let (stored, tokenizer) = arguments.model.open()?;
    let ids = tokenizer.encode_prompt(&arguments.text.read()?);
    let threads = arguments.running.threads.threads();
    let plain = tempfile::tempdir_in(scratch.path())?;
    let mut lines = vec![line(arguments, selections, &stop, stored, "as it is".to_owned(), plain.path())?];
    let open = || arguments.model.stored();
    for &format in &arguments.sweep {
        stop.check()?;
        let source = Source::Encoded(Box::new(open), format);
        let encoded = Encoded::prepare(&source, scratch.path(), false, &threads)?;
        let distance = compare(&open()?, &(encoded.open)()?, &ids, &threads)?;
        let folder = tempfile::tempdir_in(scratch.path())?;
        let line = line(arguments, selections, &stop, (encoded.open)()?, format.to_string(), folder.path())?;
        let flips = flips(plain.path(), folder.path(), &line.results)?;
        lines.push(Line { distance: Some(distance), flips, ..line });
    }
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", Value::from(lines.iter().map(as_json).collect::<Vec<_>>()))?;
    } else {
        write!(out, "{}", as_text(&lines))?;
    }
    Ok(())
}

/// Evaluates `stored`; its samples go to `folder`.
fn line(
    arguments: &Arguments,
    selections: &[Selection],
    stop: &Stop,
    stored: StoredModel,
    format: String,
    folder: &Path,
) -> Result<Line> {
    tell(format!("weights {format}"));
    let bytes = stored.size();
    let tokenizer = arguments.model.open()?.1;
    let mut subject = subject::load(arguments, stored, tokenizer)?;
    subject.name = format.clone();
    let prepared = prepare(&distinct(selections), &sources::of(arguments.data.clone()), &subject.options)?;
    let (display, begin) = (Display::new(), Instant::now());
    let results =
        subject.evaluate(selections, prepared, Journal::default(), Some(folder), stop.flag(), &mut |progress| {
            display.show(progress)
        });
    let tokens = subject.scorer.computed();
    display.finish(tokens);
    stop.check()?;
    let results = results?;
    let tokens_per_second = tokens as f64 / begin.elapsed().as_secs_f64().max(1e-9);
    Ok(Line { format, bytes, tokens_per_second, distance: None, results, flips: BTreeMap::new() })
}

/// The documents of each task whose answer differs between two folders.
fn flips(plain: &Path, folder: &Path, results: &Results) -> Result<BTreeMap<(String, String), usize>> {
    let (plain, other) = (Earlier::open(plain)?, Earlier::open(folder)?);
    let mut flips = BTreeMap::new();
    for (key, task) in &results.tasks {
        for metric in task.metrics.keys().filter(|metric| Metric::is_share(metric)) {
            let (before, after) = (plain.values(key, metric)?, other.values(key, metric)?);
            let differ = before.iter().filter(|(index, value)| after.get(index) != Some(value)).count();
            flips.insert((key.clone(), metric.clone()), differ);
        }
    }
    Ok(flips)
}

fn as_text(lines: &[Line]) -> String {
    let mut header = ["weights", "size", "tokens/s", "perplexity", "KL"].map(str::to_owned).to_vec();
    let scores: Vec<(&String, &String)> = lines.first().map_or(Vec::new(), |line| {
        line.results.tasks.iter().flat_map(|(key, task)| task.metrics.keys().map(move |metric| (key, metric))).collect()
    });
    header.extend(scores.iter().map(|(key, metric)| format!("{key} {metric}")));
    let mut table = vec![header];
    for line in lines {
        // That of the model as it is comes with each comparison.
        let perplexity = match line.distance {
            Some(distance) => distance.perplexities.map(|[_, other]| other),
            None => lines.iter().find_map(|line| line.distance?.perplexities).map(|[plain, _]| plain),
        };
        let mut cells = vec![
            line.format.clone(),
            HumanBytes(line.bytes as u64).to_string(),
            format!("{:.0}", line.tokens_per_second),
            perplexity.map(|x| format!("{x:.3}")).unwrap_or_default(),
            line.distance.map(|distance| format!("{:.6}", distance.mean_kl)).unwrap_or_default(),
        ];
        cells.extend(scores.iter().map(|&(key, metric)| {
            let score = line.results.tasks[key].metrics[metric].value;
            let share = Metric::is_share(metric);
            let text = if share { format!("{:.2}", 100.0 * score) } else { format!("{score:.3}") };
            match line.flips.get(&(key.clone(), metric.clone())) {
                Some(flips) => format!("{text}, {flips} flipped"),
                None => text,
            }
        }));
        table.push(cells);
    }
    table_of(&table, 1)
}

fn as_json(line: &Line) -> Value {
    let flips = line.flips.iter().map(|((key, metric), count)| (format!("{key} {metric}"), json!(count)));
    json!({
        "weights": line.format,
        "bytes": line.bytes,
        "tokens_per_second": line.tokens_per_second,
        "perplexity": line.distance.and_then(|distance| distance.perplexities).map(|[_, other]| other),
        "mean_kl": line.distance.map(|distance| distance.mean_kl),
        "flipped": flips.collect::<serde_json::Map<_, _>>(),
        "results": line.results,
    })
}
