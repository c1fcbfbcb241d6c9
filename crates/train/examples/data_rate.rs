//! How fast rows come from a recipe's corpus, without a trainer.
//!
//! ```text
//! taskset -c 0 cargo run --release -p openelm-train --example data_rate -- recipes/storyteller.toml
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openelm_model::Tokenizer;
use openelm_train::data::{Encode, RowStream};
use openelm_train::{Recipe, text_repair};

/// How long rows are taken.
const TIME: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("give a recipe, and key=value for what it should have otherwise")?;
    let recipe = Recipe::load(Path::new(&path), &arguments.collect::<Vec<_>>())?;
    let tokenizer = Tokenizer::open(&Tokenizer::find(&recipe.tokenizer.path)?)?;
    let (pad, repair) = (tokenizer.vocab_size() as u32, recipe.tokenizer.clean.then(text_repair).transpose()?);
    let encode: Encode = Arc::new(move |text| match repair {
        Some(repair) => tokenizer.encode_with(&repair(text), true, true),
        None => tokenizer.encode_with(text, true, true),
    });
    let length = recipe.train.sequence_length + 1;
    let mut rows = RowStream::new(recipe.data.clone(), encode, length, pad, recipe.train.seed, true)?;
    // Until the shuffle buffer is full no row comes out.
    rows.take(1)?;
    let (begin, mut tokens) = (Instant::now(), 0);
    while begin.elapsed() < TIME {
        tokens += rows.take(1)?.len() * (length - 1);
    }
    println!("{:.0} tokens/s, {} workers", tokens as f64 / begin.elapsed().as_secs_f64(), recipe.data.workers);
    Ok(())
}
