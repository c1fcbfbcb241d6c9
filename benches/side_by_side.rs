//! Training, prefill and decoding beside the same model in PyTorch, alternating in one run; each rate with its limit.
//!
//! ```text
//! cargo bench -p openelm-train --bench side_by_side -- [--only small,270m,adapters,generate] [--rounds 3] [--bf16] \
//!     [--peer "python /path/to/torch_openelm.py"]
//! cargo bench -p openelm-train --bench side_by_side -- --adapter lora|dora [--size 270m|450m|1.1b|3b] [--weights f32|q4_0|...] \
//!     [--rank 32] [--rows 4] [--time 256] [--steps 3] [--bf16]
//! ```
//!
//! The second form tunes an adapter alone, so that the memory is that of this alone, and prints what the peer prints: a JSON object
//! with `tokens_per_s` and `peak_gib`. `scripts/peers/tuning_speed.py` lets both take turns.
//!
//! The peer is any command that takes `train|lora|prefill|decode --size 270M|small …` and prints a JSON object with the key
//! `tokens_per_s`; without one, our own rates alone are printed. With `--bf16` products are in bf16 where models are trained, and
//! the peer is told `--dtype amp`. Limits: arithmetic at 6 operations per parameter and token
//! (4 where an adapter is trained, 2 without a backward pass) against fused multiply-adds in registers; decoding against the bandwidth of reading.

use std::convert::Infallible;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use openelm_bench::{Medians, RandomModel, Resident, alternate};
use openelm_model::kernels::rounded::Products;
use openelm_model::kernels::{Threads, limits};
use openelm_model::{Engine, Geometry, Model, ModelConfig, ModelError, Session, tensor_specs};
use openelm_train::data::{Batch, Row};
use openelm_train::tune::{AdapterKind, AdapterRecipe, fresh_adapter};
use openelm_train::{NextToken, TrainableModel, Trainer, TrainerOptions, initialise};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1)).cloned();
    let rounds = value("--rounds").and_then(|n| n.parse().ok()).unwrap_or(3);
    let only = value("--only").unwrap_or_else(|| "small,270m,generate".to_owned());
    let peer = value("--peer");
    let threads = Threads::new(0);
    if let Some(kind) = value("--adapter") {
        let number = |flag: &str, otherwise| value(flag).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
        let name = format!("openelm-{}", value("--size").unwrap_or_else(|| "270m".to_owned()).to_lowercase());
        let alone = Alone {
            config: ModelConfig::by_name(&name).expect("the size is one of OpenELM's"),
            kind: if kind == "dora" { AdapterKind::Dora } else { AdapterKind::Lora },
            weights: value("--weights").unwrap_or_else(|| "f32".to_owned()),
            rank: number("--rank", 32),
            shape: (number("--rows", 4), number("--time", TIME)),
            steps: number("--steps", 3),
        };
        let in_bf16 = arguments.iter().any(|argument| argument == "--bf16");
        return alone.run(&threads, if in_bf16 { Products::BF16 } else { Products::F32 });
    }

    let f32_peak = limits::f32_peak(&threads);
    let in_bf16 = arguments.iter().any(|argument| argument == "--bf16");
    let bf16_peak = limits::bf16_peak(&threads).filter(|_| in_bf16);
    let (products, peak) = (if in_bf16 { Products::BF16 } else { Products::F32 }, bf16_peak.unwrap_or(f32_peak));
    let dtype = if in_bf16 { "amp" } else { "f32" };
    let bandwidth = limits::read_bandwidth(&threads, 1 << 30);
    println!("{} threads: {:.0} GFLOP/s f32, {:.1} GB/s", threads.count(), f32_peak / 1e9, bandwidth / 1e9);
    if let Some(peak) = bf16_peak {
        println!("{:.0} GFLOP/s bf16", peak / 1e9);
    }
    let small = Geometry { layers: 8, dim: 256, gqa_groups: 2, ..Geometry::default() }.build(4096);
    let small = small.expect("the small configuration is sound");
    let large = ModelConfig::openelm_270m();
    let report = Report { rounds, peer, threads: &threads };
    if only.contains("small") {
        let limit = peak / (6.0 * small.parameters() as f64);
        report.run(
            "train small, 16 x 256",
            limit,
            &format!("train --size small --batch 16 --seq 256 --dtype {dtype}"),
            training(&small, 16, &threads, products),
        );
    }
    if only.contains("270m") {
        let limit = peak / (6.0 * large.parameters() as f64);
        report.run(
            "train 270M, 4 x 256",
            limit,
            &format!("train --size 270M --batch 4 --seq 256 --steps 3 --dtype {dtype}"),
            training(&large, 4, &threads, products),
        );
    }
    if only.contains("adapters") {
        let limit = peak / (4.0 * large.parameters() as f64);
        let settings = format!("--size 270M --batch 4 --seq 256 --dtype {dtype}");
        let lora = tuning(&large, AdapterKind::Lora, "f32", &threads, products);
        report.run("LoRA on 270M, rank 32, 4 x 256", limit, &format!("lora {settings}"), lora);
        let dora = tuning(&large, AdapterKind::Dora, "f32", &threads, products);
        report.run("DoRA on 270M, rank 32, 4 x 256", limit, &format!("lora --dora {settings}"), dora);
        let quantised = tuning(&large, AdapterKind::Lora, "q4_0", &threads, products);
        report.run("LoRA on 270M in Q4_0, rank 32, 4 x 256", limit, &format!("lora {settings}"), quantised);
    }
    if only.contains("generate") {
        let model = random_model(&large, &threads);
        let flops = 2.0 * large.parameters() as f64;
        let peak = f32_peak;
        let prefill = || {
            let mut session = Session::new(Engine::new(model.clone(), threads.clone()), 512);
            let ids: Vec<u32> = (0..512).map(|i| i * 37 % 32_000).collect();
            let begin = Instant::now();
            session.append_all(&ids, |logits| assert!(black_box(logits)[0].is_finite())).expect("the ids are in range");
            512.0 / begin.elapsed().as_secs_f64()
        };
        report.run("prefill 270M f32, 512, all logits", peak / flops, "prefill --size 270M --seq 512", prefill);
        let decode = || {
            let mut session = Session::new(Engine::new(model.clone(), threads.clone()), 128);
            session.append(&[1]).expect("the id is in range");
            let begin = Instant::now();
            for id in 0..64 {
                session.append(&[id]).expect("the id is in range");
            }
            64.0 / begin.elapsed().as_secs_f64()
        };
        let limit = bandwidth / model.weight_bytes() as f64;
        report.run("decode 270M f32, 64", limit, "decode --size 270M --tokens 64", decode);
    }
}

/// How a comparison is made and shown.
struct Report<'a> {
    rounds: usize,
    peer: Option<String>,
    threads: &'a Threads,
}

impl Report<'_> {
    /// Measures ours and the peer's in turn and prints the medians.
    fn run(&self, what: &str, limit: f64, peer_arguments: &str, mut ours: impl FnMut() -> f64) {
        ours();
        // `peer_rate` tells of a peer that fails; its rate is then not a number.
        let mut theirs = || Ok(self.peer_rate(peer_arguments).unwrap_or(f64::NAN));
        let peer: Option<&mut dyn FnMut() -> Result<f64, Infallible>> = self.peer.is_some().then_some(&mut theirs);
        let Ok(Medians { ours, peer }) = alternate(self.rounds, || Ok(ours()), peer);
        print!("{what}: {ours:.1} tokens/s, limit {limit:.0}, {:.0} % of it", 100.0 * ours / limit);
        if let Some(peer) = peer {
            print!("; peer {peer:.1}, {:.2}x", ours / peer);
        }
        println!();
    }

    fn peer_rate(&self, arguments: &str) -> Option<f64> {
        let mut words = self.peer.as_ref()?.split_whitespace();
        let threads = self.threads.count().to_string();
        let mut command = Command::new(words.next()?);
        command.args(words).args(arguments.split_whitespace()).args(["--threads", &threads]);
        let output = command.output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result: Option<serde_json::Value> = text.lines().find_map(|line| serde_json::from_str(line).ok());
        let rate = result.and_then(|result| result["tokens_per_s"].as_f64());
        if rate.is_none() {
            eprintln!("the peer gave no rate: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
        rate
    }
}

/// A training step of all weights on random ids; gives tokens per second.
fn training<'t>(
    config: &ModelConfig,
    batch: usize,
    threads: &'t Threads,
    products: Products,
) -> impl FnMut() -> f64 + use<'t> {
    let model = TrainableModel::new(config.clone(), initialise(config, 1));
    let mut step = steps(model.expect("every tensor is there"), (batch, TIME), threads, products);
    move || step(STEPS)
}

/// An adapter that is tuned with nothing else in the process.
struct Alone {
    config: ModelConfig,
    kind: AdapterKind,
    weights: String,
    rank: usize,
    /// Rows of a micro-batch, and tokens of a row.
    shape: (usize, usize),
    steps: usize,
}

impl Alone {
    fn run(&self, threads: &Threads, products: Products) {
        let model = adapted(&self.config, self.kind, &self.weights, self.rank, threads);
        let mut step = steps(model, self.shape, threads, products);
        // The first one fills the buffers.
        let mut rates: Vec<f64> = (0..=self.steps).map(|_| step(1)).skip(1).collect();
        rates.sort_by(f64::total_cmp);
        let peak = Resident::now().map(|resident| resident.peak as f64 / f64::from(1u32 << 30));
        let rate = rates.get(rates.len() / 2);
        println!("{}", serde_json::json!({ "tokens_per_s": rate, "peak_gib": peak, "rates": rates }));
    }
}

/// A training step of an adapter of rank 32 on all linear layers of a model in `format`.
fn tuning<'t>(
    config: &ModelConfig,
    kind: AdapterKind,
    format: &str,
    threads: &'t Threads,
    products: Products,
) -> impl FnMut() -> f64 + use<'t> {
    let mut step = steps(adapted(config, kind, format, 32, threads), (4, TIME), threads, products);
    move || step(STEPS)
}

/// An adapter of `rank` on all linear layers of a random model in `format`.
fn adapted(config: &ModelConfig, kind: AdapterKind, format: &str, rank: usize, threads: &Threads) -> TrainableModel {
    let format = format.parse().expect("the format is known");
    let random = RandomModel::new(config, format, threads).expect("rows are filled by whole blocks");
    let model = Model::packing(config.clone(), threads, |spec| {
        Ok::<_, ModelError>(random.tensor(spec).expect("the tensor is one of the model's"))
    });
    let model = model.expect("every tensor is there");
    let recipe = AdapterRecipe { kind, rank, alpha: rank as f64, dropout: 0.0, ..AdapterRecipe::default() };
    let adapter = fresh_adapter(&model, &recipe, 1, threads).expect("every target is there");
    TrainableModel::adapted(model, &adapter).expect("the adapter fits")
}

/// Tokens of a row, and steps of a measurement.
const TIME: usize = 256;
const STEPS: usize = 3;

/// Makes as many steps on random ids, `[rows, time]`, as it is told; gives tokens per second.
fn steps<'t>(
    model: TrainableModel,
    (rows, time): (usize, usize),
    threads: &'t Threads,
    products: Products,
) -> impl FnMut(usize) -> f64 + use<'t> {
    let objective = NextToken { ignore: None, z_weight: 1e-4 };
    let vocabulary = model.config().vocab_size as u32;
    let mut trainer = Trainer::new(model, threads.clone(), TrainerOptions { products, ..TrainerOptions::default() });
    let row =
        move |row: usize| (0..=time).map(|i| (row * 7919 + i * 104_729) as u32 % vocabulary).collect::<Vec<u32>>();
    let batch = Batch::from_rows(&(0..rows).map(row).map(Row::from).collect::<Vec<_>>());
    move |count| {
        let begin = Instant::now();
        for _ in 0..count {
            black_box(trainer.step(&objective, std::slice::from_ref(&batch), 1e-4)).expect("a rank alone loses nobody");
        }
        (count * batch.inputs.len()) as f64 / begin.elapsed().as_secs_f64()
    }
}

fn random_model(config: &ModelConfig, threads: &Threads) -> Model {
    let format = "f32".parse().expect("the format is known");
    let random = RandomModel::new(config, format, threads).expect("floats fill rows of any length");
    let tensors = tensor_specs(config).into_iter().map(|spec| {
        let tensor = random.tensor(&spec).expect("the tensor is one of the model's");
        (spec.name, tensor)
    });
    Model::new(config.clone(), tensors.collect()).expect("every tensor is there")
}
