//! `openelm eval`: how well a model answers.

mod progress;
mod sources;
mod subject;
mod sweep;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use openelm_bench::WeightFormat;
use openelm_eval::{
    Column, Earlier, EvalError, Harness, Journal, Library, Prepared, Results, Selection, Subject, TaskName, chart,
    distinct, markdown, paper_table, prepare, published, rows,
};
use openelm_formats::atomic;

use super::compare::TextOptions;
use super::running::RunningOptions;
use super::shown;
use crate::interrupt::Stop;
use crate::model::ModelOptions;
use crate::tell;
use progress::Display;

/// Documents that take long enough for an interruption to matter.
const MANY: usize = 500;

/// Measure a model on tasks of lm-evaluation-harness, request by request as it does.
///
/// A task is arc_easy, arc_easy:5 with 5 shots, race@0.4.9.1 by the rules of an older harness, a group such as
/// openelm-zero-shot, or a TOML file of your own (docs/guides/evaluation.md). With --output a second call goes on where the
/// first one was interrupted.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Tasks and groups, separated by commas
    #[arg(long, short, value_name = "TASK", value_delimiter = ',', required_unless_present_any = ["list", "table"])]
    tasks: Vec<String>,
    /// Show the tasks and groups there are
    #[arg(long)]
    list: bool,
    /// Folder of data sets, instead of the hub
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Shots for tasks that name none
    #[arg(long, value_name = "N", default_value_t = 0)]
    num_fewshot: usize,
    /// Only the first documents of each task
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// The version of the harness to agree with: 0.4.13 or 0.4.9.1
    #[arg(long, value_name = "VERSION", default_value_t = Harness::default())]
    harness: Harness,
    /// Whether texts begin with the token for that [default: as the tokenizer does it]
    #[arg(long, value_enum, value_name = "WHETHER")]
    bos: Option<Bos>,
    /// Most tokens that the model sees at once [default: what the model was trained for]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    context: Option<usize>,
    /// The seed that shots are drawn with
    #[arg(long, default_value_t = 1234)]
    seed: u32,
    /// Folder for results, samples and finished requests
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Compare with a model's published scores, or with the results in a folder; can be given several times
    #[arg(long, value_name = "MODEL|FOLDER")]
    compare: Vec<String>,
    /// Draw the accuracies as an SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Measure these weight formats beside the model: q8_0, q4_0, mlx4, ...
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', conflicts_with_all = ["output", "compare", "chart", "table"])]
    sweep: Vec<WeightFormat>,
    #[command(flatten)]
    text: TextOptions,
    /// Print a table of published scores, with what was measured here beside it: results of this call and of --compare folders
    #[arg(long, value_enum, value_name = "TABLE")]
    table: Option<Table>,
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bos {
    Yes,
    No,
}

#[derive(Clone, Copy, ValueEnum)]
enum Table {
    /// OpenELM beside OLMo and others, by the means of the paper's three suites
    OpenelmPaper,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "at least 1 is needed".to_owned())
}

pub fn run(arguments: Arguments) -> Result<()> {
    let library = Library::new(arguments.harness)?;
    if arguments.list {
        return list(&library);
    }
    let selections = arguments.selections(&library)?;
    let columns = arguments.columns()?;
    if !arguments.sweep.is_empty() {
        return sweep::run(&arguments, &selections);
    }
    let mut out = String::new();
    if !selections.is_empty() {
        let subject = arguments.subject()?;
        let results = evaluate(&arguments, subject, &selections)?;
        if arguments.json {
            writeln!(stdout(), "{}", serde_json::to_string(&results)?)?;
        } else {
            out += &report(&arguments, &results, &columns)?;
        }
        if let Some(table) = arguments.table {
            out += "\n";
            out += &paper(table, &arguments, Some(&results))?;
        }
    } else if let Some(table) = arguments.table {
        out += &paper(table, &arguments, None)?;
    }
    Ok(stdout().write_all(out.as_bytes())?)
}

impl Arguments {
    fn selections(&self, library: &Library) -> Result<Vec<Selection>> {
        let select = |name: &String| {
            let name = TaskName::parse(name).map_err(anyhow::Error::msg)?;
            Ok(library.select(&name, self.num_fewshot)?)
        };
        self.tasks.iter().filter(|name| !name.is_empty()).map(select).collect()
    }

    /// What to compare with: a folder of results, or the model whose published scores have that name.
    fn columns(&self) -> Result<Vec<Column>> {
        let known = published()?;
        let column = |name: &String| {
            if Path::new(name).is_dir() {
                return Ok(Column::earlier(Earlier::open(Path::new(name))?));
            }
            let model = known.iter().find(|model| model.name.eq_ignore_ascii_case(name)).cloned();
            let names = || known.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
            let unknown = || {
                format!(
                    "{name} is neither a folder of results nor a model with published scores; there are {}",
                    names()
                )
            };
            model.map(Column::published).with_context(unknown)
        };
        self.compare.iter().map(column).collect()
    }

    fn subject(&self) -> Result<Subject> {
        let (stored, tokenizer) = self.model.open()?;
        subject::load(self, stored, tokenizer)
    }
}

/// Evaluates `selections`; with an output folder everything goes there.
fn evaluate(arguments: &Arguments, mut subject: Subject, selections: &[Selection]) -> Result<Results> {
    let sources = sources::of(arguments.data.clone());
    let tasks = distinct(selections);
    let prepared = prepare(&tasks, &sources, &subject.options)?;
    let output = arguments.output.as_deref();
    let journal = match output {
        Some(folder) => Journal::open(folder, &subject.identity)?,
        None => {
            if prepared.iter().map(Prepared::documents).sum::<usize>() > MANY {
                tell("nothing is kept of this run if it is interrupted; --output FOLDER keeps every finished request");
            }
            Journal::default()
        }
    };
    if !journal.is_empty() {
        tell(format!("{} finished requests are here already", journal.len()));
    }
    let stop = Stop::saying(match output {
        Some(_) => "stopping; the same command goes on from here",
        None => "stopping; nothing is kept without --output",
    })?;
    let display = Display::new();
    let results =
        subject.evaluate(selections, prepared, journal, output, stop.flag(), &mut |progress| display.show(progress));
    if let Err(EvalError::Stopped) | Ok(_) = results {
        display.finish(subject.scorer.computed());
    } else {
        display.clear();
    }
    let results = match results {
        Err(EvalError::Stopped) => {
            stop.check()?;
            return Err(EvalError::Stopped.into());
        }
        results => results?,
    };
    results.notes().iter().for_each(tell);
    Ok(results)
}

/// The table, with where the scores beside it are from; it also goes to the output folder, the chart to its file.
fn report(arguments: &Arguments, results: &Results, columns: &[Column]) -> Result<String> {
    let rows = rows(results, arguments.output.as_deref(), columns)?;
    let mut text = markdown(&rows, columns);
    for column in columns {
        text += &format!("\n{}: {}", column.name, column.source);
    }
    text += if columns.is_empty() { "" } else { "\n" };
    let write = |path: &Path, text: &str| {
        atomic::write_file(path, |file| file.write_all(text.as_bytes())).with_context(|| shown(path))
    };
    if let Some(folder) = &arguments.output {
        write(&folder.join("results.md"), &text)?;
    }
    if let Some(path) = &arguments.chart {
        let name = results.model["name"].as_str().unwrap_or_default();
        write(path, &chart(name, &rows, columns)?)?;
    }
    Ok(text)
}

fn paper(table: Table, arguments: &Arguments, results: Option<&Results>) -> Result<String> {
    let Table::OpenelmPaper = table;
    let mut measured = Vec::new();
    for folder in arguments.compare.iter().map(Path::new).filter(|path| path.is_dir()) {
        let results = Earlier::open(folder)?.results().clone();
        measured.push((shown(folder), results));
    }
    if let Some(results) = results {
        measured.push((results.model["name"].as_str().unwrap_or_default().to_owned(), results.clone()));
    }
    Ok(paper_table(&measured)?)
}

fn list(library: &Library) -> Result<()> {
    let mut text = "Tasks (version, split, metrics):\n".to_owned();
    for task in library.tasks() {
        let metrics: Vec<&str> = task.metrics.iter().map(|metric| metric.name()).collect();
        text += &format!("  {:<44} v{}  {:<11} {}\n", task.name, task.version, task.data.split, metrics.join(", "));
    }
    text += "\nGroups:\n";
    for group in library.groups() {
        let members: Vec<&str> = group.members.iter().map(|member| member.task.as_str()).collect();
        let shown = if members.len() > 10 { format!("{} tasks", members.len()) } else { members.join(", ") };
        text += &format!("  {:<24} {shown}\n", group.name);
    }
    Ok(stdout().write_all(text.as_bytes())?)
}
