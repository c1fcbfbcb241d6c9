//! Whole runs on a small corpus: resuming to the bit, folders that are in use, checkpoints that are not what they were.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use openelm_model::kernels::Threads;
use openelm_testing::run::SmallRun;
use openelm_train::Recipe;
use openelm_train::pretrain::pretrain;
use openelm_train::run::{Entry, Event, Outcome, RunError};
use support::load;

const STEPS: u64 = 12;

fn small_run() -> SmallRun {
    SmallRun::new(
        3,
        12,
        &format!(
            "train = {{ seed = 3, sequence_length = 16, batch_size = 3, accumulation = 2, steps = {STEPS} }}\n\
             schedule = {{ max_lr = 1e-2, warmup_steps = 4 }}\n\
             log = {{ every = 1, validate_every = 5 }}\n\
             checkpoint = {{ every = 4, keep = 2 }}\n"
        ),
    )
}

fn run(recipe: &Recipe) -> Result<Outcome, RunError> {
    pretrain(recipe, Threads::new(2), &AtomicBool::new(false), &mut |_| ())
}

/// Runs until `step` was made, as Ctrl-C would leave it.
fn run_until(recipe: &Recipe, threads: usize, step: u64) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut watch = |event: Event| {
        if let Event::Step(entry) = event
            && entry.step == step
        {
            stop.store(true, Ordering::Relaxed);
        }
    };
    pretrain(recipe, Threads::new(threads), &stop, &mut watch).unwrap()
}

/// Every file of a checkpoint.
fn contents(checkpoint: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(checkpoint)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The log without its times.
fn losses(run: &SmallRun) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(run.out("log.jsonl")).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str(line).unwrap());
    entries
        .filter_map(|entry| match entry {
            Entry::Step(entry) => Some((entry.step, entry.loss)),
            Entry::Validation(entry) => Some((entry.step, entry.validation_loss)),
            Entry::Sample(_) | Entry::Metrics(_) => None,
        })
        .collect()
}

#[test]
fn an_interrupted_run_ends_where_an_undisturbed_one_does() {
    let whole = small_run();
    let undisturbed = run(&load(&whole, &[])).unwrap();
    assert!(undisturbed.finished && undisturbed.step == STEPS && undisturbed.epochs > 0);

    let parts = small_run();
    // The corpus lies elsewhere, so its marks differ; everything else must not.
    for (step, threads) in [(5, 1), (6, 2), (STEPS + 1, 1)] {
        // Who writes the checkpoints makes no difference either.
        let background = format!("checkpoint.background={}", threads == 2);
        let outcome = run_until(&load(&parts, &[&background]), threads, step);
        assert_eq!(outcome.finished, step > STEPS);
    }
    assert_eq!(losses(&whole), losses(&parts));
    let last = format!("checkpoints/step-{STEPS:08}");
    for ((name, a), (_, b)) in contents(&whole.out(&last)).iter().zip(contents(&parts.out(&last))) {
        if name != "state.json" && name != "checksums.json" {
            assert!(*a == b, "{name} differs");
        }
    }
    let kept: Vec<_> = fs::read_dir(parts.out("checkpoints")).unwrap().collect();
    assert_eq!(kept.len(), 2, "checkpoint.keep was not followed");
    assert!(fs::read_to_string(parts.out("loss.svg")).unwrap().contains("validation"));
    assert!(fs::read_dir(parts.out("tensorboard")).unwrap().next().is_some());

    let first = losses(&whole).first().unwrap().1;
    let last = losses(&whole).last().unwrap().1;
    assert!(last < first - 0.5, "nothing was learnt: {first} to {last}");
}

#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let first = small_run();
    let recipe = load(&first, &[]);
    let mut refused = None;
    let mut watch = |event: Event| {
        if matches!(event, Event::Started { .. }) {
            refused = run(&recipe).err();
        }
    };
    pretrain(&recipe, Threads::new(1), &AtomicBool::new(false), &mut watch).unwrap();
    assert!(matches!(refused, Some(RunError::Busy { .. })), "{refused:?}");
}

#[test]
fn damaged_checkpoints_are_noticed_and_the_one_before_still_works() {
    let run_ = small_run();
    run_until(&load(&run_, &[]), 2, 6);
    let newest = run_.out("checkpoints/step-00000006");
    let path = newest.join("optimizer.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let message = run(&load(&run_, &[])).unwrap_err().to_string();
    assert!(message.contains("step-00000006") && message.contains("optimizer.safetensors"), "{message}");
    fs::remove_dir_all(newest).unwrap();
    assert!(run(&load(&run_, &[])).unwrap().finished);
}

#[test]
fn a_checkpoint_that_cannot_be_written_costs_nothing_but_its_own_steps() {
    let run_ = small_run();
    let recipe = load(&run_, &[]);
    run_until(&recipe, 2, 4);
    // Something is in the way of the next one.
    let obstacle = run_.out("checkpoints/step-00000008");
    fs::create_dir_all(obstacle.join("in the way")).unwrap();
    let message = run(&recipe).unwrap_err().to_string();
    assert!(message.contains("step-00000008"), "{message}");
    assert_eq!(fs::read_dir(run_.out("checkpoints")).unwrap().count(), 2, "something is left over");
    fs::remove_dir_all(obstacle).unwrap();
    let outcome = run(&recipe).unwrap();
    assert!(outcome.finished);
    assert_eq!(losses(&run_).iter().filter(|(step, _)| *step == 6).count(), 1, "a step is in the log twice");
}

#[test]
fn checkpoints_of_another_run_are_refused() {
    let run_ = small_run();
    run_until(&load(&run_, &[]), 2, 4);
    let says = |sets: &[&str], expected: &str| {
        let message = run(&load(&run_, sets)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    says(&["model.ffn_divisor=32"], "another model");
    says(&["train.sequence_length=20"], "its rows were of 17 tokens");
    fs::write(run_.folder().join("book1.txt"), "a shorter book").unwrap();
    says(&[], "the corpus changed");
}

#[test]
fn a_corpus_without_enough_text_and_a_rate_too_high_are_named() {
    let run_ = small_run();
    let message = run(&load(&run_, &["data.min_tokens=100000"])).unwrap_err().to_string();
    assert!(message.contains("no row of 17 tokens"), "{message}");
    let run_ = small_run();
    let message = run(&load(&run_, &["schedule.max_lr=1e30", "schedule.warmup_steps=0"])).unwrap_err().to_string();
    assert!(message.contains("lower schedule.max_lr"), "{message}");
}

/// The one folder of a refused update: its batch and its checkpoint.
fn study(run: &SmallRun) -> (serde_json::Value, PathBuf) {
    let entries = fs::read_dir(run.out("")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("spike-step-")).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    let batch = serde_json::from_slice(&fs::read(folders[0].join("batch.json")).unwrap()).unwrap();
    let checkpoint = fs::read_dir(&folders[0]).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    (batch, checkpoint.unwrap())
}

#[test]
fn an_update_that_would_spoil_the_model_is_not_made_and_kept_for_study() {
    let run_ = small_run();
    // A z-loss this heavy overflows in the first gradients; the weights are those that the run began with.
    let message = run(&load(&run_, &["optimizer.z_loss=3e38"])).unwrap_err().to_string();
    assert!(message.contains("at step 1") && message.contains("spike-step-00000001"), "{message}");
    let (batch, checkpoint) = study(&run_);
    assert!(batch["gradient_norm"].is_null(), "{batch}");
    let rows = batch["micro_batches"][1].as_array().unwrap();
    assert_eq!((rows.len(), rows[0]["ids"].as_array().unwrap().len()), (3, 17));
    assert!(rows[0]["loss"].as_f64().unwrap() > 1.0, "{batch}");
    assert!(batch["gradient_norms"].as_object().unwrap().contains_key("token_embeddings.weight"), "{batch}");
    let kept = openelm_formats::huggingface::read(&checkpoint).unwrap();
    let first = openelm_train::initialise(&kept.config, 3);
    let (spec, values) = first.tensors().next().unwrap();
    assert_eq!(kept.tensor(&spec.name).unwrap().to_f32(), values);
}

#[test]
fn a_run_goes_on_behind_the_batch_of_a_spike_when_told_to() {
    let sets = ["train.steps=80", "spike.deviations=3", "spike.updates=1", "checkpoint.every=10", "log.every=1"];
    let run_ = small_run();
    run_until(&load(&run_, &sets), 2, 60);
    // A sudden high rate makes the losses rise.
    let hot = [&sets[..], &["schedule.max_lr=10.0"]].concat();
    let message = run(&load(&run_, &hot)).unwrap_err().to_string();
    assert!(message.contains("the loss was too high for 1 updates in a row"), "{message}");
    let (batch, checkpoint) = study(&run_);
    assert!(batch["loss"].as_f64().unwrap() > batch["smoothed_loss"].as_f64().unwrap());
    // Without a change the same update is refused again, and kept once.
    assert_eq!(run(&load(&run_, &hot)).unwrap_err().to_string(), message);
    assert_eq!(study(&run_), (batch.clone(), checkpoint.clone()));
    let place = run_.out("checkpoints").join(checkpoint.file_name().unwrap());
    fs::rename(&checkpoint, &place).unwrap();
    // Still as hot, the next batch is refused too: the same step, another folder.
    let message = run(&load(&run_, &hot)).unwrap_err().to_string();
    let second = checkpoint.parent().unwrap().to_str().unwrap().to_owned() + "-2";
    assert!(message.contains(&second) && message.contains("in the place of one of the same name"), "{message}");
    let other: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&second).join("batch.json")).unwrap()).unwrap();
    assert!(other["step"] == batch["step"] && other["micro_batches"] != batch["micro_batches"]);
    fs::remove_dir_all(&place).unwrap();
    fs::rename(Path::new(&second).join(checkpoint.file_name().unwrap()), &place).unwrap();
    let mut from = None;
    let mut watch = |event: Event| {
        if let Event::Started { step, .. } = event {
            from = Some(step);
        }
    };
    let calm = load(&run_, &["train.steps=80", "log.every=1"]);
    let outcome = pretrain(&calm, Threads::new(2), &AtomicBool::new(false), &mut watch).unwrap();
    assert!(outcome.finished);
    assert_eq!(from, batch["step"].as_u64().map(|step| step - 1));
}

#[cfg(unix)]
#[test]
fn why_an_update_is_refused_is_told_even_if_it_cannot_be_kept() {
    let run_ = small_run();
    fs::create_dir_all(run_.out("")).unwrap();
    fs::write(run_.out("log.jsonl"), "no entry\n").unwrap();
    // The log is looked at when all else is ready.
    let mut watch = |event: Event| {
        if matches!(event, Event::LogMended { .. }) {
            fs::remove_dir_all(run_.out("")).unwrap();
            fs::write(run_.folder().join("out"), "in the way").unwrap();
        }
    };
    let recipe = load(&run_, &["optimizer.z_loss=3e38", "log.tensorboard=false"]);
    let message = pretrain(&recipe, Threads::new(2), &AtomicBool::new(false), &mut watch).unwrap_err().to_string();
    assert!(message.contains("the gradient norm would be") && message.contains("could not be kept"), "{message}");
}

#[test]
fn what_is_measured_and_written_on_the_way_is_checked_before_the_run_begins() {
    let run_ = small_run();
    let says = |sets: &[&str], parts: &[&str]| {
        let message = run(&load(&run_, sets)).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!run_.out("log.jsonl").exists(), "the run had begun");
    };
    says(&["validation.min_tokens=100000"], &["validation corpus validation", "no row of 17 tokens"]);
    says(&["validation.sources=[{path=\"nowhere/*.md\"}]"], &["validation corpus validation", "nowhere"]);
    let long = format!("log.prompts=[\"fox {}\"]", "fox ".repeat(500));
    says(&[&long, "log.sample_every=5", "model.context_length=400"], &["log.prompts", "tokens, the model takes 400"]);
}

#[test]
fn a_text_that_cannot_be_measured_ends_the_run_with_its_state_saved() {
    let run_ = small_run();
    let held_out = run_.folder().join("held-out.txt");
    let mut watch = |event: Event| {
        if matches!(event, Event::Step(entry) if entry.step == 5) {
            fs::remove_file(&held_out).unwrap();
        }
    };
    let result = pretrain(&load(&run_, &[]), Threads::new(2), &AtomicBool::new(false), &mut watch);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("validation corpus validation") && message.contains("held-out.txt"), "{message}");
    assert!(run_.out("checkpoints/step-00000005").exists());
}

#[test]
fn lines_of_the_log_that_cannot_be_read_are_told_and_the_others_stay() {
    let run_ = small_run();
    run_until(&load(&run_, &[]), 2, 6);
    let before = losses(&run_);
    let path = run_.out("log.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('\n', "\n{nonsense\n", 2)).unwrap();
    let mut mended = None;
    let mut watch = |event: Event| {
        if let Event::LogMended { lines, .. } = event {
            mended = Some(lines);
        }
    };
    pretrain(&load(&run_, &[]), Threads::new(2), &AtomicBool::new(false), &mut watch).unwrap();
    assert_eq!(mended, Some(vec![2, 4]));
    assert_eq!(losses(&run_)[..before.len()], before);
}

#[test]
fn several_corpora_are_measured_and_samples_written() {
    let run_ = small_run();
    let root = run_.folder().display();
    let corpora = format!(
        "validation=[{{name=\"third\", sources=[{{path=\"{root}/held-out.txt\"}}]}}, \
         {{name=\"first\", sources=[{{path=\"{root}/book0.txt\"}}]}}]"
    );
    let sets = [corpora.as_str(), "log.sample_every=6", "log.sample_tokens=5", "log.prompts=[\"In book\"]"];
    run(&load(&run_, &sets)).unwrap();
    let text = fs::read_to_string(run_.out("log.jsonl")).unwrap();
    let entries: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| {
        let named = |entry: &&Entry| matches!(entry, Entry::Validation(entry) if entry.corpus == name);
        entries.iter().filter(named).map(Entry::step).collect::<Vec<_>>()
    };
    assert_eq!((of("third"), of("first")), (vec![5, 10, 12], vec![5, 10, 12]));
    let samples: Vec<_> = entries.iter().filter(|entry| matches!(entry, Entry::Sample(_))).map(Entry::step).collect();
    assert_eq!(samples, [6, 12]);
    assert!(fs::read_to_string(run_.out("loss.svg")).unwrap().contains("third"));
}

#[test]
fn old_checkpoints_stay_at_every_so_many_updates() {
    let run_ = small_run();
    run(&load(&run_, &["checkpoint.every=2", "checkpoint.keep=1", "checkpoint.keep_every=6"])).unwrap();
    let mut kept: Vec<_> =
        fs::read_dir(run_.out("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["step-00000006", "step-00000012"]);
}

#[test]
fn a_file_that_cannot_be_read_ends_the_run_with_its_state_saved() {
    let books = small_run();
    let recipe = |name: &str| {
        let output = format!("output={}", books.folder().join(name).display());
        load(&books, &[&output, "data.shuffle_buffer=2", "train.accumulation=1"])
    };
    // A book that is mended from a copy gets its time back with it.
    let write = |path: &Path, bytes: &[u8]| {
        fs::write(path, bytes).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    let paths = [0, 1, 2].map(|book| books.folder().join(format!("book{book}.txt")));
    paths.iter().for_each(|path| write(path, &fs::read(path).unwrap()));
    let expected = contents(&run(&recipe("undisturbed")).unwrap().checkpoint);
    let mut saved = 0;
    for (book, path) in paths.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        let damaged = [&whole[..whole.len() - 1], b"\xff"].concat();
        write(path, &damaged);
        let recipe = recipe(&format!("out{book}"));
        let message = run(&recipe).unwrap_err().to_string();
        assert!(message.contains(&format!("book{book}.txt")) && message.contains("not UTF-8"), "{message}");
        // A run that never began leaves no folder behind.
        saved += usize::from(recipe.output.join("checkpoints").exists());
        write(path, &whole);
        assert_eq!(contents(&run(&recipe).unwrap().checkpoint), expected, "book {book}");
    }
    assert_eq!(saved, 2, "all but the book that comes first");
}

#[test]
fn the_data_of_corenet_is_padded_and_padding_is_not_learnt() {
    let books = small_run();
    // Validation follows: packed, what is held out would not fill a row.
    let recipe =
        load(&books, &["data.parity=corenet", "train.sequence_length=600", "train.steps=2", "schedule.warmup_steps=1"]);
    let outcome = run(&recipe);
    let outcome = outcome.unwrap();
    let config = fs::read_to_string(outcome.checkpoint.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["vocab_size"], 2048 + 128, "room for the padding");
    let (step, counts) = (outcome.step, outcome.counts[0]);
    assert_eq!((step, counts.documents), (2, 12), "a row for each book");
    let log = fs::read_to_string(books.out("log.jsonl")).unwrap();
    let mut steps = log.lines().filter_map(|line| match serde_json::from_str(line).unwrap() {
        Entry::Step(entry) => Some(entry),
        _ => None,
    });
    let last = steps.next_back().unwrap();
    // Of a row all ids but the first are targets.
    assert_eq!(last.tokens, counts.tokens - counts.documents);
}
