//! Runs that are killed, run out of disk or find something else than they left: nothing is lost, repeated or half written.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use openelm_testing::interrupts_are_ignored;
use openelm_testing::run::SmallRun;
use serde_json::Value;
use support::{openelm, output, path, refused};

// Enough that a run is still at work when a signal reaches it.
const STEPS: u64 = 500;

/// A recipe and its corpus, for several runs.
struct Corpus(SmallRun);

impl Corpus {
    fn new() -> Self {
        Self(SmallRun::new(
            2,
            40,
            &format!(
                "train = {{ seed = 5, sequence_length = 24, batch_size = 4, steps = {STEPS} }}\n\
                 schedule = {{ max_lr = 1e-2, warmup_steps = 10 }}\n\
                 log = {{ every = 3, validate_every = 20, sample_every = 25, sample_tokens = 4 }}\n\
                 checkpoint = {{ every = 5, keep = 2, keep_every = 100 }}\n"
            ),
        ))
    }

    fn out(&self, run: &str) -> PathBuf {
        self.0.out(run)
    }

    fn arguments(&self, run: &str) -> Vec<String> {
        let output = format!("output={}", self.out(run).display());
        ["pretrain", path(&self.0.recipe()), "--set", &output, "--threads", "2"].map(str::to_owned).to_vec()
    }

    fn start(&self, run: &str) -> Child {
        let arguments = self.arguments(run);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        openelm(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    #[track_caller]
    fn finish(&self, run: &str) {
        let arguments = self.arguments(run);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        output(&arguments);
    }
}

/// Every file below `folder`, by its name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

/// The log without its rates.
fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let line = |line: &str| {
        let mut entry: Value = serde_json::from_str(line).unwrap();
        entry.as_object_mut().unwrap().remove("tokens_per_second");
        entry
    };
    text.lines().map(line).collect()
}

/// Asserts that `run` ended as `undisturbed` did: weights, moments, position in the corpus and counts to the last byte
/// (no row was lost or came twice), the same checkpoints kept, the same log.
#[track_caller]
fn assert_same(undisturbed: &Path, run: &Path) {
    let last = format!("checkpoints/step-{STEPS:08}");
    let (expected, found) = (files(&undisturbed.join(&last)), files(&run.join(&last)));
    assert!(expected.contains_key("model.safetensors") && expected.contains_key("state.json"));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
    assert_eq!(log(undisturbed), log(run));
    assert_eq!(names(&undisturbed.join("checkpoints")), names(&run.join("checkpoints")));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// Whether a checkpoint is being written.
fn writing(run: &Path) -> bool {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(".tmp"))
}

/// Waits until `ready` or the process has ended by itself; whether it still runs.
fn wait_until(child: &mut Child, mut ready: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    panic!("nothing happens");
}

#[test]
fn killed_at_any_moment_a_run_ends_as_if_nothing_had_been() {
    let corpus = Corpus::new();
    corpus.finish("undisturbed");
    let run = corpus.out("killed");
    let log_lines = || fs::read_to_string(run.join("log.jsonl")).map_or(0, |text| text.lines().count());
    // Between the first update and a while after: during updates, validation, samples and writing, as it falls.
    let mut kills = [0, 0];
    for round in 0..25u64 {
        let mut child = corpus.start("killed");
        let (before, delay) = (log_lines(), Duration::from_millis(round * round * 7 % 31));
        let runs = match round {
            // In the middle of writing, and once more before the next checkpoint is there: CoreNet loses its place here.
            2 | 3 | 6 | 11 | 17 | 23 => wait_until(&mut child, || writing(&run)),
            _ => {
                let begin = Instant::now();
                wait_until(&mut child, || log_lines() > before || (before > 0 && begin.elapsed() > delay))
            }
        };
        if runs {
            kills[usize::from(writing(&run))] += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills[0] + kills[1] >= 20, "the runs ended before they could be killed: {kills:?}");
    assert!(kills[1] > 0, "no checkpoint was being written: {kills:?}");
    corpus.finish("killed");
    assert_same(&corpus.out("undisturbed"), &run);
}

#[test]
fn ctrl_c_waits_for_the_checkpoint_and_the_same_command_goes_on() {
    if interrupts_are_ignored() {
        return;
    }
    let corpus = Corpus::new();
    corpus.finish("undisturbed");
    let run = corpus.out("stopped");
    let mut child = corpus.start("stopped");
    assert!(wait_until(&mut child, || writing(&run)), "it ended too soon");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!writing(&run), "something is left over");
    corpus.finish("stopped");
    assert_same(&corpus.out("undisturbed"), &run);
}

#[test]
fn a_full_disk_stops_the_run_and_the_checkpoints_before_stand() {
    let corpus = Corpus::new();
    corpus.finish("undisturbed");
    let run = corpus.out("full");
    let mut child = corpus.start("full");
    assert!(wait_until(&mut child, || run.join("checkpoints/step-00000005").exists()), "it ended too soon");
    child.kill().unwrap();
    child.wait().unwrap();
    let before =
        names(&run.join("checkpoints")).into_iter().filter(|name| name.starts_with("step-")).collect::<Vec<_>>();

    // Files of more than 64 blocks of 512 or 1024 bytes cannot be written, as on a disk that is full.
    let command = r#"trap '' XFSZ; ulimit -f 64; exec "$@""#;
    let arguments = [&[env!("CARGO_BIN_EXE_openelm").to_owned()], &corpus.arguments("full")[..]].concat();
    let Output { status, stderr, .. } =
        Command::new("sh").args(["-c", command, "sh"]).args(arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    let last = message.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{message}");
    assert!(last.starts_with("error: checkpoint ") && last.contains("cannot be written"), "{message}");
    assert_eq!(names(&run.join("checkpoints")), before, "{message}");
    corpus.finish("full");
    assert_same(&corpus.out("undisturbed"), &run);
}

#[test]
fn what_does_not_fit_the_run_is_refused_in_one_sentence() {
    let corpus = Corpus::new();
    corpus.finish("run");
    let says = |sets: &[&str], parts: &[&str]| {
        let mut arguments = corpus.arguments("run");
        arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments, parts);
    };
    let newest = format!("step-{STEPS:08}");
    says(
        &["model.layers=3"],
        &[&newest, "of another model: layers was 2 and is 3 now", "choose another output folder"],
    );
    says(&["train.sequence_length=30"], &["its rows were of 25 tokens and are of 31 now"]);
    says(&["train.batch_size=1000000000000"], &["available", "--ignore-memory"]);
    says(&["train.batch_size=0"], &["train.batch_size is 0"]);
    says(&["train.stepz=7"], &["unknown field `stepz`"]);
    let state = corpus.out("run").join("checkpoints").join(&newest).join("state.json");
    fs::write(&state, "{}").unwrap();
    says(&[], &[&newest, "is damaged: state.json", "remove it to go on from the one before"]);
}
