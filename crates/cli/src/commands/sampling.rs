//! How tokens are drawn, for the commands that write text.

use clap::Args;
use openelm_model::{Finish, GenerationOptions, SamplingOptions};

/// How tokens are drawn, and where a text ends.
#[derive(Args)]
pub struct SamplingArguments {
    /// Always take the most probable token; the same as --temperature 0
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Flattens (above 1) or sharpens (below 1) the distribution
    #[arg(long, short, default_value_t = 0.8)]
    temperature: f32,
    /// Draw among this many most probable tokens; 0 is all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw among the fewest most probable tokens that reach this probability; 1 is all
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Draw among tokens at least this probable relative to the most probable one
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Makes tokens that were there before less probable; 1 is off
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// No sequence of this many tokens comes twice; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0)]
    no_repeat_ngram: usize,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End where this text would come; can be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on behind the token that ends a text
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArguments {
    /// The options of a generation of at most `max_tokens` tokens.
    pub fn options(&self, max_tokens: usize) -> GenerationOptions {
        let sampling = SamplingOptions {
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram: self.no_repeat_ngram,
            temperature: if self.greedy { 0.0 } else { self.temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
        };
        let (stop, ignore_eos) = (self.stop.clone(), self.ignore_eos);
        GenerationOptions { sampling, max_tokens, stop, ignore_eos, log_probabilities: false }
    }
}

/// Why a text ended, in JSON.
pub fn name(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText => "end_of_text",
        Finish::Stop => "stop",
        Finish::MaxTokens => "max_tokens",
        Finish::ContextFull => "context_full",
    }
}
