//! `openelm generate`: text behind a prompt.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use openelm_model::{Finish, Generation};
use serde_json::json;

use super::running::RunningOptions;
use super::sampling::{SamplingArguments, name};
use crate::input::{read_file, read_stdin};
use crate::model::ModelOptions;
use crate::tell;

/// Continue a text.
#[derive(Args)]
pub struct Arguments {
    /// The text to continue; standard input where neither this nor --file is given
    prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(long, short, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
    /// Most tokens to generate
    #[arg(long, short = 'n', default_value_t = 200)]
    max_tokens: usize,
    /// Longest sequence, prompt included [default: what the model was trained for]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Print one JSON object at the end instead of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let prompt = read_prompt(&arguments)?;
    let (stored, tokenizer) = arguments.model.open()?;
    let ids = tokenizer.encode_prompt(&prompt);
    let limit = arguments.context.unwrap_or(stored.config.context_length);
    if ids.len() >= limit {
        let tokens = ids.len();
        bail!("the prompt has {tokens} tokens and the context only {limit}; shorten it or raise --context");
    }
    let options = arguments.sampling.options(arguments.max_tokens);
    options.sampling.validate()?;
    let tokens = ids.len().saturating_add(options.max_tokens).min(limit);
    arguments.running.check_memory(&stored, tokens)?;
    let mut session = arguments.running.session(stored, limit)?;

    let mut out = stdout().lock();
    let mut show = |text: &str| match arguments.json {
        true => Ok(()),
        // A reader that has gone away wants no more text: the error ends the generation.
        false => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
    };
    show(&prompt)?;
    let begin = Instant::now();
    let mut generation = Generation::new(&mut session, &tokenizer, &ids, options)?;
    let prompt_rate = rate(ids.len(), begin.elapsed());
    let begin = Instant::now();
    let (mut text, mut made) = (String::new(), Vec::new());
    while let Some(piece) = generation.next().transpose()? {
        show(&piece.text)?;
        text.push_str(&piece.text);
        made.extend(piece.tokens.iter().map(|token| token.id));
    }
    let finish = generation.finish().unwrap_or(Finish::MaxTokens);
    let rate = rate(made.len(), begin.elapsed());
    show("\n")?;

    if arguments.json {
        let result = json!({
            "prompt": prompt,
            "text": text,
            "prompt_ids": ids,
            "ids": made,
            "finish": name(finish),
            "prompt_tokens_per_second": prompt_rate,
            "tokens_per_second": rate,
        });
        writeln!(out, "{result}")?;
    } else {
        let (read, made) = (ids.len(), made.len());
        tell(format!(
            "prompt: {read} tokens, {prompt_rate:.0} per second; generated: {made} tokens, {rate:.0} per second"
        ));
    }
    Ok(())
}

fn read_prompt(arguments: &Arguments) -> Result<String> {
    if let Some(prompt) = &arguments.prompt {
        return Ok(prompt.clone());
    }
    if let Some(file) = &arguments.file {
        return read_file(file);
    }
    read_stdin()
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}
