//! `openelm pretrain --init`: a first recipe for some texts.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{HumanCount, HumanDuration, ProgressBar};
use openelm_model::kernels::Threads;
use openelm_train::data::Source;
use openelm_train::write_starter;

use crate::interrupt::leave_on_interrupt;
use crate::tell;

/// Writes a recipe and a tokenizer for `texts` into `folder`.
pub(super) fn run(folder: &Path, texts: &[PathBuf], text_key: Option<&str>, threads: &Threads) -> Result<()> {
    leave_on_interrupt(|| ())?;
    let source = |path: &PathBuf| {
        let name = path.to_str().with_context(|| format!("{}: name a pattern or a folder instead", path.display()))?;
        let mut source = Source::new(name);
        if let Some(key) = text_key {
            key.clone_into(&mut source.text_key);
        }
        anyhow::Ok(source)
    };
    let sources = texts.iter().map(source).collect::<Result<_>>()?;
    let bar = ProgressBar::new_spinner();
    let starter = write_starter(folder, sources, threads, &mut |documents| {
        bar.set_position(documents);
        bar.set_message(format!("{documents} documents"));
    });
    bar.finish_and_clear();
    let starter = starter?;
    tell(format!("texts: about {} tokens of a tokenizer of {} pieces", HumanCount(starter.tokens), starter.pieces));
    tell(format!("model: {:.2} M parameters", starter.parameters as f64 / 1e6));
    let time = HumanDuration(Duration::from_secs_f64(starter.seconds));
    tell(format!("run: {} updates, about {time} on this machine", starter.steps));
    tell(format!("next: openelm pretrain {}", starter.recipe.display()));
    Ok(writeln!(stdout(), "{}", starter.recipe.display())?)
}
