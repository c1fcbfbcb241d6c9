//! The measurements: one model after the other, on each number of threads.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use openelm_model::kernels::Threads;
use openelm_model::{
    Adapter, AdapterWeights, CacheType, Engine, EngineError, Feed, Footprint, Logits, ModelConfig, Rows, Sequence,
    Session, TensorSpec,
};

use crate::address_space;
use crate::limits::Limits;
use crate::peer::{Peer, PeerTest};
use crate::report::{Measurement, Phase, Report, Run};
use crate::resident::Resident;
use crate::rounds::{Medians, alternate, median};
use crate::subject::{Source, Subject};
use crate::work::Work;
use crate::{BenchError, WeightFormat};

/// What is measured, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Numbers of threads, one run each; 0 means one per physical core.
    pub threads: Vec<usize>,
    /// Lengths of prompts.
    pub prompts: Vec<usize>,
    /// Tokens to generate.
    pub tokens: usize,
    /// Tokens in the cache when decoding is measured a second time; `None` means as many as the context leaves.
    pub fill: Option<usize>,
    /// Numbers of sequences to decode together.
    pub sequences: Vec<usize>,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Rounds of each measurement; the median counts.
    pub rounds: usize,
    /// Folder for the models that are made for the benchmark.
    pub scratch: PathBuf,
    /// Whether to begin although memory seems too small.
    pub ignore_memory: bool,
}

impl Options {
    fn fill(&self, config: &ModelConfig) -> usize {
        self.fill.unwrap_or(config.context_length.saturating_sub(self.tokens)).max(1)
    }
}

/// Measures all `sources`, with the sum of `adapters`, each times its weight, at work, and beside `peer` if there is one;
/// `progress` is told what comes next, and each rate as soon as it is known.
///
/// # Errors
/// See [`BenchError`]. A model for which there is too little memory is refused before anything is measured.
pub fn run(
    sources: &[Source<'_>],
    options: &Options,
    adapters: &[(Adapter, f32)],
    peer: Option<&Peer>,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, BenchError> {
    if !options.ignore_memory
        && let Some(available) = openelm_model::available_memory()
    {
        sources.iter().try_for_each(|source| check_memory(source, options, peer.is_some(), available))?;
    }
    let pools: Vec<Threads> = options.threads.iter().map(|&count| Threads::new(count)).collect();
    let mut limits: Vec<Limits> = Vec::new();
    let mut measured = Vec::new();
    for source in sources {
        progress("writing or opening a model");
        let subject = Subject::prepare(source, &options.scratch, peer.is_some(), &Threads::new(0))?;
        for threads in &pools {
            let (format, count) = (subject.format, threads.count());
            let mut progress = |what: &str| progress(&format!("{format}, threads {count}: {what}"));
            progress("limits of the machine");
            let now = Limits::measure(threads);
            match limits.iter_mut().find(|known| known.threads == count) {
                Some(known) => *known = now.best(known),
                None => limits.push(now),
            }
            let peer = peer.zip(subject.peer.as_ref());
            measured.push(measure(&subject, options, adapters, (threads, peer), &mut progress)?);
        }
    }
    let finish = |(mut run, rates): (Run, Vec<Rate>)| {
        // The limits of every number of threads were measured before its first run.
        let limits = limits.iter().filter(|limits| limits.threads == run.threads);
        run.measurements = limits.flat_map(|limits| rates.iter().map(|rate| rate.against(limits))).collect();
        run
    };
    let runs = measured.into_iter().map(finish).collect();
    Ok(Report { rounds: options.rounds, cache: options.cache.to_string(), limits, runs })
}

/// Refuses a model that `available` bytes do not hold; a peer holds one of its own at the same time.
fn check_memory(source: &Source<'_>, options: &Options, with_peer: bool, available: u64) -> Result<(), BenchError> {
    let (config, weights) = source.size()?;
    let tokens = options.fill(&config).saturating_add(options.tokens);
    let tokens = options.prompts.iter().copied().fold(tokens, usize::max);
    let available = if with_peer { available / 2 } else { available };
    // The file is mapped twice besides: for its layout, and while its weights are packed.
    let mappable = address_space::left().map(|left| left.saturating_sub(2 * weights as u64));
    let available = mappable.map_or(available, |mappable| mappable.min(available));
    let checked = Footprint::new(&config, weights, tokens, options.cache).check(available);
    checked.map_err(|source| BenchError::Memory { with_peer, source })
}

/// Tokens of each sequence before several are decoded together.
const BATCH_PROMPT: usize = 16;

/// A peer, with the file that it reads and how its weights are stored.
type PeerFile<'a> = (&'a Peer, &'a (PathBuf, WeightFormat));

/// A rate whose limit is still to be worked out.
struct Rate {
    phase: Phase,
    tokens: usize,
    cached: usize,
    sequences: usize,
    medians: Medians,
    first_token_seconds: Option<f64>,
    /// What is done for `work_tokens` tokens at a time.
    work: Work,
    work_tokens: usize,
}

impl Rate {
    fn against(&self, limits: &Limits) -> Measurement {
        let (seconds, bound) = limits.least_time(&self.work);
        let (rate, limit) = (self.medians.ours, self.work_tokens as f64 / seconds);
        Measurement {
            phase: self.phase,
            tokens: self.tokens,
            cached: self.cached,
            sequences: self.sequences,
            tokens_per_second: rate,
            limit_tokens_per_second: limit,
            bound,
            share: rate / limit,
            first_token_seconds: self.first_token_seconds,
            peer_tokens_per_second: self.medians.peer,
            ratio: self.medians.peer.map(|peer| rate / peer),
        }
    }
}

/// Loads a model and takes all rates.
fn measure(
    subject: &Subject<'_>,
    options: &Options,
    adapters: &[(Adapter, f32)],
    (threads, peer): (&Threads, Option<PeerFile<'_>>),
    progress: &mut dyn FnMut(&str),
) -> Result<(Run, Vec<Rate>), BenchError> {
    let layout = (subject.open)()?;
    let encoding = |spec: &TensorSpec| layout.encoding(&spec.name);
    let peak_is_known = Resident::forget_peak();

    progress("loading");
    let begin = Instant::now();
    let model = (subject.open)()?.into_packed_model(threads)?;
    let engine = Arc::new(Engine::new(model, threads.clone()).with_cache(options.cache));
    let adapter = at_work(adapters, &engine);
    let load_seconds = begin.elapsed().as_secs_f64();
    let products = engine.model().products();
    let adapter_parameters: usize = adapters.iter().map(|(adapter, _)| linear_parameters(adapter)).sum();
    let adapted = |work: Work, rows: usize| work.in_products(products).with_adapter(adapter_parameters, rows);
    let work =
        |tokens, cached| adapted(Work::of_tokens(&layout.config, encoding, tokens, cached, options.cache), tokens);

    let mut bench = Bench { engine: &engine, adapter, rounds: options.rounds, peer: None, private: 0 };
    bench.peer = peer.map(|(peer, (file, _))| (peer, file.as_path()));
    let mut rates = Vec::new();
    for &tokens in &options.prompts {
        progress(&format!("prefill {tokens}"));
        let (medians, first_token) = bench.prefill(tokens)?;
        progress(&format!("prefill {tokens}: {medians}"));
        rates.push(Rate {
            phase: Phase::Prefill,
            tokens,
            cached: 0,
            sequences: 1,
            medians,
            first_token_seconds: first_token,
            work: work(tokens, 0),
            work_tokens: tokens,
        });
    }
    for cached in [0, options.fill(&layout.config)] {
        progress(&format!("decode {} behind {cached}", options.tokens));
        let medians = bench.decode(options.tokens, cached)?;
        progress(&format!("decode {} behind {cached}: {medians}", options.tokens));
        rates.push(Rate {
            phase: Phase::Decode,
            tokens: options.tokens,
            cached,
            sequences: 1,
            medians,
            first_token_seconds: None,
            work: work(1, cached),
            work_tokens: 1,
        });
    }
    for &sequences in &options.sequences {
        progress(&format!("decode {} of {sequences} sequences", options.tokens));
        let medians = bench.batch(sequences, options.tokens)?;
        progress(&format!("decode {} of {sequences} sequences: {medians}", options.tokens));
        rates.push(Rate {
            phase: Phase::Batch,
            tokens: options.tokens,
            cached: BATCH_PROMPT,
            sequences,
            medians,
            first_token_seconds: None,
            work: adapted(
                Work::of_sequences(&layout.config, encoding, sequences, BATCH_PROMPT, options.cache),
                sequences,
            ),
            work_tokens: sequences,
        });
    }
    let run = Run {
        weights: subject.format.to_string(),
        weight_bytes: layout.size() as u64,
        parameters: layout.config.parameters() as u64,
        adapter_parameters: adapter_parameters as u64,
        threads: threads.count(),
        peer_weights: peer.map(|(_, (_, format))| format.to_string()),
        load_seconds,
        peak_memory_bytes: Resident::now().filter(|_| peak_is_known).map(|resident| resident.peak),
        private_memory_bytes: Resident::now().map(|_| bench.private),
        measurements: Vec::new(),
    };
    Ok((run, rates))
}

/// The sum of `adapters` for the model of `engine`, if there are any.
fn at_work(adapters: &[(Adapter, f32)], engine: &Engine) -> Option<Arc<AdapterWeights>> {
    let adapters: Vec<(&Adapter, f32)> = adapters.iter().map(|(adapter, weight)| (adapter, *weight)).collect();
    (!adapters.is_empty()).then(|| Arc::new(AdapterWeights::combined(&adapters, engine.model(), engine.threads())))
}

/// Elements of the factors that every token is multiplied with: of an embedding's A it takes one column.
fn linear_parameters(adapter: &Adapter) -> usize {
    let linear = adapter.modules().filter(|(target, _)| !target.embedding);
    linear.map(|(target, module)| module.rank() * (target.inputs + target.outputs)).sum()
}

/// A loaded model that is measured.
struct Bench<'a> {
    engine: &'a Arc<Engine>,
    adapter: Option<Arc<AdapterWeights>>,
    rounds: usize,
    peer: Option<(&'a Peer, &'a Path)>,
    /// The most private memory seen.
    private: u64,
}

impl Bench<'_> {
    /// A session with the adapter at work.
    fn session(&self, limit: usize) -> Result<Session, EngineError> {
        match &self.adapter {
            Some(adapter) => Session::adapted(self.engine.clone(), limit, adapter.clone()),
            None => Ok(Session::new(self.engine.clone(), limit)),
        }
    }

    /// The rate of a prompt in a session that has seen one like it, and the median seconds of a new session.
    fn prefill(&mut self, tokens: usize) -> Result<(Medians, Option<f64>), BenchError> {
        let ids = ids(tokens, self.engine.model().config().vocab_size);
        let mut private = self.private;
        let mut first_token = Vec::new();
        let ours = || {
            let begin = Instant::now();
            let mut session = self.session(tokens)?;
            black_box(session.append(&ids)?);
            first_token.push(begin.elapsed().as_secs_f64());
            session.truncate(0);
            let begin = Instant::now();
            black_box(session.append(&ids)?);
            let seconds = begin.elapsed().as_secs_f64();
            note_private(&mut private);
            Ok(tokens as f64 / seconds)
        };
        let medians = self.alternate(ours, PeerTest::Prefill { tokens })?;
        self.private = private;
        Ok((medians, median(&mut first_token)))
    }

    /// The rate of `tokens` single tokens behind `cached` others (the first of all cannot be generated: one at least).
    fn decode(&mut self, tokens: usize, cached: usize) -> Result<Medians, BenchError> {
        let vocabulary = self.engine.model().config().vocab_size;
        let before = ids(cached.max(1), vocabulary);
        let ids = ids(tokens, vocabulary);
        let limit = before.len() + tokens;
        let mut session = self.session(limit)?;
        session.append(&before)?;
        let mut private = self.private;
        let ours = || {
            session.truncate(before.len());
            let begin = Instant::now();
            for id in &ids {
                black_box(session.append(std::slice::from_ref(id))?);
            }
            let seconds = begin.elapsed().as_secs_f64();
            note_private(&mut private);
            Ok(tokens as f64 / seconds)
        };
        let medians = self.alternate(ours, PeerTest::Decode { tokens, cached })?;
        self.private = private;
        Ok(medians)
    }

    /// The rate of `sequences` sequences, of which each generates `tokens` tokens, all in step.
    fn batch(&mut self, sequences: usize, tokens: usize) -> Result<Medians, BenchError> {
        let vocabulary = self.engine.model().config().vocab_size;
        let ids = ids(BATCH_PROMPT + sequences * tokens, vocabulary);
        let (prompt, drawn) = ids.split_at(BATCH_PROMPT);
        let limit = BATCH_PROMPT + tokens;
        let sequence = |_| match &self.adapter {
            Some(adapter) => self.engine.adapted_sequence(limit, adapter.clone()),
            None => Ok(self.engine.sequence(limit)),
        };
        let mut together: Vec<Sequence> = (0..sequences).map(sequence).collect::<Result<_, _>>()?;
        let (engine, mut logits, mut private) = (self.engine, Logits::default(), self.private);
        for sequence in &mut together {
            engine.step(&mut [Feed { sequence, tokens: prompt, logits: Rows::Last }], &mut logits)?;
        }
        let ours = || {
            together.iter_mut().for_each(|sequence| sequence.truncate(BATCH_PROMPT));
            let begin = Instant::now();
            for ids in drawn.chunks(sequences) {
                let feed = |(sequence, tokens)| Feed { sequence, tokens, logits: Rows::Last };
                let mut feeds: Vec<Feed<'_>> = together.iter_mut().zip(ids.chunks(1)).map(feed).collect();
                engine.step(&mut feeds, &mut logits)?;
                black_box(&logits);
            }
            let seconds = begin.elapsed().as_secs_f64();
            note_private(&mut private);
            Ok((sequences * tokens) as f64 / seconds)
        };
        let medians = self.alternate(ours, PeerTest::Batch { sequences, tokens, cached: BATCH_PROMPT })?;
        self.private = private;
        Ok(medians)
    }

    fn alternate(&self, ours: impl FnMut() -> Result<f64, BenchError>, test: PeerTest) -> Result<Medians, BenchError> {
        let Some((peer, file)) = self.peer else { return alternate(self.rounds, ours, None) };
        let mut theirs = || peer.rate(file, self.engine.threads().count(), test);
        alternate(self.rounds, ours, Some(&mut theirs))
    }
}

fn note_private(most: &mut u64) {
    *most = Resident::now().map_or(0, |resident| resident.private).max(*most);
}

/// Ids from all over the vocabulary, the same every time.
fn ids(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocabulary) as u32).collect()
}

#[cfg(test)]
mod tests {
    use openelm_model::Geometry;

    use super::*;
    use crate::Bound;

    #[test]
    fn a_rate_is_held_against_what_the_machine_can_do() {
        let limits = Limits {
            threads: 1,
            bytes_per_second: 1e9,
            f32_operations_per_second: 1e9,
            bf16_operations_per_second: None,
            int8_operations_per_second: 4e9,
            int8_instructions: "",
        };
        let rate = Rate {
            phase: Phase::Prefill,
            tokens: 100,
            cached: 0,
            sequences: 1,
            medians: Medians { ours: 300.0, peer: Some(200.0) },
            first_token_seconds: None,
            work: Work { bytes: 1_000, int8_operations: 800_000_000, ..Work::default() },
            work_tokens: 100,
        };
        // 100 tokens in 0.2 seconds at best.
        let measurement = rate.against(&limits);
        assert_eq!((measurement.limit_tokens_per_second, measurement.bound), (500.0, Bound::Int8));
        assert_eq!((measurement.share, measurement.ratio), (0.6, Some(1.5)));
    }

    #[test]
    fn too_little_memory_is_found_before_anything_is_written() {
        let config = Geometry { layers: 2, dim: 256, ..Geometry::default() }.build(300).unwrap();
        let options = Options {
            threads: vec![1],
            prompts: vec![8],
            tokens: 4,
            fill: None,
            sequences: Vec::new(),
            cache: CacheType::default(),
            rounds: 1,
            scratch: PathBuf::from("nowhere"),
            ignore_memory: false,
        };
        let source = Source::Random(config.clone(), "f32".parse().unwrap());
        let weights = source.size().unwrap().1;
        let needed = Footprint::new(&config, weights, config.context_length, options.cache).total();
        assert!(check_memory(&source, &options, false, needed).is_ok());
        let refused = check_memory(&source, &options, false, needed - 1).unwrap_err().to_string();
        assert!(refused.contains("2048 tokens"), "{refused}");
        let refused = check_memory(&source, &options, true, 2 * needed - 1).unwrap_err().to_string();
        assert!(refused.contains("llama-bench"), "{refused}");
    }
}
