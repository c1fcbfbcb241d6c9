//! `openelm pull`: fetch a model.

use std::io::{IsTerminal, Write, stderr, stdout};

use anyhow::Result;
use clap::Args;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use openelm_hub::{Event, Name, Pattern, PullOptions, Settings, TokenizerChoice, pull};

use crate::interrupt::leave_on_interrupt;
use crate::tell;

/// Fetch a model from the Hugging Face hub or from Apple; a second call goes on where the first was interrupted.
///
/// Prints the folder that holds the model. Commands take the name itself, too: `openelm generate --model NAME`.
#[derive(Args)]
#[command(after_help = names())]
pub struct Arguments {
    /// What to fetch
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Show the names there are
    #[arg(long)]
    list: bool,
    /// Of a repository with several models, the file to fetch; can be a pattern, and be given several times
    #[arg(long, value_name = "FILE")]
    file: Vec<Pattern>,
    /// Take the tokenizer of this repository [default: LLaMA's for an OpenELM that has none]
    #[arg(long, value_name = "OWNER/NAME", conflicts_with = "no_tokenizer")]
    tokenizer: Option<String>,
    /// Fetch no tokenizer but the model's own
    #[arg(long)]
    no_tokenizer: bool,
    /// Fetch again what is here already
    #[arg(long)]
    force: bool,
    /// How often to try again what fails, in a row
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Some(name) = arguments.name.filter(|_| !arguments.list) else {
        return Ok(writeln!(stdout(), "{}", names())?);
    };
    let name = Name::parse(&name)?;
    let tokenizer = match arguments.tokenizer.as_deref().map(Name::parse).transpose()? {
        Some(Name::Repository(repository)) => TokenizerChoice::Of(repository),
        Some(Name::CoreNet(_)) => anyhow::bail!("--tokenizer takes a repository of the hub, OWNER/NAME"),
        None if arguments.no_tokenizer => TokenizerChoice::None,
        None => TokenizerChoice::Llama,
    };
    let mut settings = Settings::from_environment()?;
    settings.patience.retries = arguments.retries;
    let options = PullOptions { files: arguments.file, tokenizer, force: arguments.force };
    leave_on_interrupt(|| tell("\nstopped; the same command goes on from here"))?;

    let mut display = Display { name: name.to_string(), bar: ProgressBar::hidden() };
    let folder = pull(&name, &options, &settings, &mut |event| display.show(event));
    display.bar.finish_and_clear();
    Ok(writeln!(stdout(), "{}", folder?.display())?)
}

fn names() -> String {
    let list = Name::list();
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = list.iter().map(|(name, what)| format!("  {name:width$}  {what}\n"));
    format!("Names (SIZE is 270M, 450M, 1.1B or 3B):\n{}", lines.collect::<String>().trim_end())
}

/// A progress bar for each file on a terminal, plain lines elsewhere.
struct Display {
    name: String,
    bar: ProgressBar,
}

impl Display {
    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Planned { files, size, here } => {
                let size = size.map(|size| format!(", {}", DecimalBytes(size))).unwrap_or_default();
                let plural = if files == 1 { "" } else { "s" };
                tell(format!("{}: {files} file{plural}{size}; {here} here already", self.name));
            }
            Event::Started { file, size, from } => {
                self.bar = bar(size);
                self.bar.set_message(file.to_owned());
                self.bar.set_position(from);
                self.bar.reset_eta();
                if !stderr().is_terminal() {
                    let size = size.map_or("size unknown".to_owned(), |size| DecimalBytes(size).to_string());
                    let from = if from > 0 { format!(", going on from {}", DecimalBytes(from)) } else { String::new() };
                    tell(format!("{file}: {size}{from}"));
                }
            }
            Event::Progress { received } => self.bar.set_position(received),
            Event::Retrying { reason } => {
                self.bar.finish_and_clear();
                tell(format!("trying again: {reason}"));
            }
            Event::Finished { file, size, sha256, checked } => {
                self.bar.finish_and_clear();
                let checked = if checked { " (as it should be)" } else { "" };
                tell(format!("{file}: {}, sha256 {sha256}{checked}", DecimalBytes(size)));
            }
        }
    }
}

fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {decimal_bytes}  {decimal_bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
