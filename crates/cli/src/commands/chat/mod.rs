//! `openelm chat`: a conversation with a model.

mod conversation;
mod script;
mod terminal;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use openelm_formats::chat_template_at;

use self::conversation::Conversation;
use super::running::RunningOptions;
use super::sampling::SamplingArguments;
use crate::model::ModelOptions;

/// Talk with a model.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// What the model is told before the conversation begins
    #[arg(long, short, value_name = "TEXT")]
    system: Option<String>,
    /// A conversation that /save wrote, to go on with
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Chat template in Jinja [default: the model's own; OpenELM-Instruct's for OpenELM]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Most tokens of an answer
    #[arg(long, short = 'n', default_value_t = 1024)]
    max_tokens: usize,
    /// Longest conversation in tokens [default: what the model was trained for]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Read a JSON object per line ({"content": "…"} goes on, {"messages": […]} begins anew) and answer each with one
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let (stored, tokenizer) = arguments.model.open()?;
    let template = match &arguments.template {
        Some(file) => chat_template_at(file, &tokenizer)?,
        None => match stored.chat_template(&tokenizer)? {
            Some(template) => template,
            None => bail!("{} has no chat template; give one with --template", stored.path.display()),
        },
    };
    let mut messages = match &arguments.load {
        Some(file) => conversation::load(file)?,
        None => Vec::new(),
    };
    if let Some(system) = &arguments.system {
        conversation::set_system(&mut messages, system);
    }
    let options = arguments.sampling.options(arguments.max_tokens);
    options.sampling.validate()?;
    let limit = arguments.context.unwrap_or(stored.config.context_length);
    arguments.running.check_memory(&stored, limit)?;
    let session = arguments.running.session(stored, limit)?;
    let conversation = Conversation::new(session, tokenizer, template, options, messages);
    if arguments.json { script::run(conversation) } else { terminal::run(conversation) }
}
