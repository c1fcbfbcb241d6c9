//! How fast a text is encoded on one thread.
//!
//! ```text
//! taskset -c 0 cargo run --release -p openelm-model --example encode_rate -- tokenizer.model text.txt
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use openelm_model::Tokenizer;

/// The best of so many runs counts.
const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, text] = &arguments[..] else { return Err("give a tokenizer and a file of text".into()) };
    let tokenizer = Tokenizer::open(Path::new(tokenizer))?;
    let text = std::fs::read_to_string(text)?;
    // As documents come: neither words nor all at once.
    let documents: Vec<&str> = text.split_inclusive("\n\n").collect();
    let mut best = f64::INFINITY;
    let mut tokens = 0;
    for _ in 0..RUNS {
        let begin = Instant::now();
        tokens = documents.iter().map(|document| tokenizer.encode(document).len()).sum();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    let (mega_tokens, mega_bytes) = (tokens as f64 / 1e6, text.len() as f64 / 1e6);
    println!("{:.2} M tokens/s, {:.1} MB/s", mega_tokens / best, mega_bytes / best);
    Ok(())
}
