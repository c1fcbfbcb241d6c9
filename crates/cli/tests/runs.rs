//! A training run as people live with it: started, watched or not, stopped, gone on with otherwise.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use openelm_testing::interrupts_are_ignored;
use openelm_testing::run::SmallRun;
use support::{openelm, output, path, refused};

fn small(steps: u64) -> SmallRun {
    SmallRun::new(
        2,
        40,
        &format!(
            "train = {{ seed = 5, sequence_length = 24, batch_size = 4, steps = {steps} }}\n\
             schedule = {{ max_lr = 1e-2, warmup_steps = 10 }}\n\
             log = {{ every = 1, validate_every = 1000 }}\ncheckpoint = {{ every = 10000 }}\n"
        ),
    )
}

fn arguments(run: &SmallRun) -> [String; 4] {
    ["pretrain", path(&run.recipe()), "--threads", "1"].map(str::to_owned)
}

fn logged(run: &SmallRun) -> usize {
    fs::read_to_string(run.out("log.jsonl")).map_or(0, |text| text.lines().count())
}

/// Waits until so many updates are in the log.
fn wait_for(run: &SmallRun, updates: usize) {
    let begin = Instant::now();
    while logged(run) < updates {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[track_caller]
fn assert_finished(run: &SmallRun, status: ExitStatus, steps: u64) {
    assert!(status.success(), "{status}");
    assert!(run.out(&format!("checkpoints/step-{steps:08}/state.json")).exists());
    assert_eq!(logged(run) as u64, steps + 1, "updates, and the validation behind them");
}

#[test]
fn a_run_goes_on_when_nobody_listens() {
    let run = small(40);
    let mut child = openelm(&arguments(&run).each_ref().map(String::as_str))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&run, 3);
    drop(child.stderr.take());
    assert_finished(&run, child.wait().unwrap(), 40);

    // A disk that is full, and standard output that is closed.
    let run = small(20);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut child =
        openelm(&arguments(&run).each_ref().map(String::as_str)).stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
    drop(child.stdout.take());
    assert_finished(&run, child.wait().unwrap(), 20);
    // Others say what they have to say, or do not.
    let status = openelm(&["generate", "Once", "-n", "2"]).stdout(Stdio::null()).stderr(full()).status().unwrap();
    assert!(status.success());
    let status = openelm(&["inspect", "nowhere"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn what_is_ignored_at_the_start_stays_ignored() {
    let run = small(60);
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP INT; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_openelm")])
        .args(arguments(&run))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&run, 3);
    signal(&child, "-HUP");
    signal(&child, "-INT");
    assert_finished(&run, child.wait().unwrap(), 60);
}

#[test]
fn a_signal_stops_saves_and_is_told_by_the_exit_code() {
    if interrupts_are_ignored() {
        return;
    }
    for (name, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let run = small(1_000_000);
        let mut child = openelm(&arguments(&run).each_ref().map(String::as_str))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&run, 3);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
        assert_eq!(fs::read_dir(run.out("checkpoints")).unwrap().count(), 1, "its state is saved");
    }
}

#[test]
fn ctrl_c_leaves_other_long_work_with_130() {
    if interrupts_are_ignored() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Takes longer to read than to press the key.
    let text = folder.path().join("long.txt");
    let mut file = std::io::BufWriter::new(File::create(&text).unwrap());
    (0..6_000_000u64).for_each(|i| writeln!(file, "{:x}", i * i * 2_654_435_761 % 1_000_000_007).unwrap());
    drop(file);
    let model = folder.path().join("tokenizer.model");
    let mut child = openelm(&["tokenizer", "train", path(&text), "--output", path(&model)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!model.exists());
}

#[test]
fn the_end_of_a_run_tells_what_came_out() {
    let run = small(15);
    let Output { status, stderr, stdout } = openelm(&arguments(&run).each_ref().map(String::as_str)).output().unwrap();
    assert!(status.success());
    let text = String::from_utf8(stderr).unwrap();
    let line = text.lines().find(|line| line.starts_with("step 15: loss ") && line.contains("smoothed"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("on validation; 1,440 tokens in all"), "{line}");
    assert_eq!(String::from_utf8(stdout).unwrap().trim(), path(&run.out("checkpoints/step-00000015")));
}

#[test]
fn another_recipe_is_told_and_the_one_of_before_is_kept() {
    let run = small(10);
    let go = |sets: &[&str]| {
        let mut all = arguments(&run).to_vec();
        all.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        let Output { status, stderr, .. } =
            openelm(&all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        let text = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{text}");
        text
    };
    go(&[]);
    let first = fs::read_to_string(run.out("recipe.toml")).unwrap();
    assert!(!go(&[]).contains("recipe"), "nothing changed");
    let text = go(&["train.steps=20", "train.batch_size=8"]);
    for part in [
        "the recipe is not the one of before, which is kept as",
        "train.batch_size was 4 and is 8 now",
        "train.steps was 10 and is 20 now",
        "from update 11 on an update learns from 192 tokens instead of 96",
        "the run ends at 2880 tokens instead of 960",
        "the learning rate of update 11 is ",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(fs::read_to_string(run.out("recipe.toml.1")).unwrap(), first);
    go(&["train.steps=30"]);
    assert!(run.out("recipe.toml.2").exists() && !run.out("recipe.toml.3").exists());
    refused(
        &[&arguments(&run).each_ref().map(String::as_str)[..], &["--set", "model.dim=128", "--set", "model.layers=3"]]
            .concat(),
        &["is of another model: layers was 2 and is 3 now, dim was 64 and is 128 now"],
    );
}

#[test]
fn a_start_that_fails_leaves_no_folder() {
    let run = small(10);
    let says = |set: &str, part: &str| {
        let mut all = arguments(&run).to_vec();
        let deep = format!("output={}", run.folder().join("runs/deep/er").display());
        all.extend(["--set", set, "--set", &deep].map(str::to_owned));
        let Output { status, stderr, .. } =
            openelm(&all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        let text = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && text.contains(part), "{text}");
        assert!(!run.folder().join("runs").exists(), "{set}");
    };
    says("data.sources=[{path=\"nowhere.txt\"}]", "no file matches nowhere.txt");
    let empty = run.folder().join("empty.txt");
    fs::write(&empty, "").unwrap();
    says(&format!("data.sources=[{{path=\"{}\"}}]", empty.display()), "hold no document");
    says("validation.sources=[{path=\"nowhere.txt\"}]", "no file matches");
    says("tokenizer.path=nowhere", "nowhere");
    // What was there before stays.
    fs::create_dir_all(run.folder().join("runs/deep")).unwrap();
    let mut all = arguments(&run).to_vec();
    all.extend(["--set", "data.sources=[{path=\"nowhere.txt\"}]", "--set"].map(str::to_owned));
    all.push(format!("output={}", run.folder().join("runs/deep").display()));
    assert!(!openelm(&all.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap().status.success());
    assert!(run.folder().join("runs/deep").exists());
}

#[test]
fn a_first_run_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let tales = folder.path().join("tales");
    fs::create_dir(&tales).unwrap();
    let day =
        |day: usize| format!("{{\"body\": \"On day {day} the fox met {} geese by the river.\"}}\n", day * 7 % 101);
    fs::write(tales.join("a.jsonl"), (0..3000).map(day).collect::<String>()).unwrap();
    let here = |arguments: &[&str]| openelm(arguments).current_dir(folder.path()).output().unwrap();
    let init = ["pretrain", "--init", "runs/first", "--text-key", "body", "tales", "--threads", "1"];
    let Output { status, stdout, stderr } = here(&init);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(stdout, b"runs/first/recipe.toml\n");
    assert!(String::from_utf8_lossy(&stderr).contains("next: openelm pretrain runs/first/recipe.toml"));
    let before = fs::read(folder.path().join("runs/first/recipe.toml")).unwrap();
    let Output { status, stderr, .. } = here(&init);
    assert_eq!(status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stderr).contains("is there already"));
    assert_eq!(fs::read(folder.path().join("runs/first/recipe.toml")).unwrap(), before);
    let inside = here(&["pretrain", "--init", "tales/run", "tales"]);
    assert!(String::from_utf8_lossy(&inside.stderr).contains("learn from what it writes"));

    assert!(here(&["plan", "--train", "runs/first/recipe.toml"]).status.success());
    let short = ["--set", "train.steps=3", "--set", "schedule.warmup_steps=1", "--threads", "1"];
    let Output { status, stdout, stderr } = here(&[&["pretrain", "runs/first/recipe.toml"], &short[..]].concat());
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert_eq!(stdout, b"runs/first/run/checkpoints/step-00000003\n");
    let model = "runs/first/run/checkpoints/step-00000003";
    assert!(here(&["generate", "The fox", "-n", "3", "--model", model]).status.success());

    refused(&["pretrain", "a.toml", "b.toml"], &["a run has one recipe", "--init"]);
}

#[test]
fn commands_of_the_guides_find_what_they_need_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let run = |arguments: &[&str]| openelm(arguments).current_dir(&root).output().unwrap();
    for arguments in [
        &["plan", "--train", "recipes/storyteller.toml"][..],
        &["plan", "--train", "recipes/openelm-270m.toml", "--vocab-size", "32000", "--ranks", "128"],
    ] {
        let Output { status, stderr, .. } = run(arguments);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    }
    let message = run(&["plan", "--train", "recipes/openelm-270m.toml"]).stderr;
    assert!(String::from_utf8_lossy(&message).contains("--vocab-size N"));
}

#[test]
fn more_threads_than_cores_are_told_as_what_they_are() {
    let Output { status, stderr, .. } = openelm(&["generate", "Once", "-n", "1", "--threads", "999"]).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(status.success() && text.contains("999 do not make it faster"), "{text}");
    let one = openelm(&["generate", "Once", "-n", "1", "--threads", "1"]).output().unwrap().stderr;
    assert!(!String::from_utf8(one).unwrap().contains("faster"));
}

#[test]
fn a_prompt_has_no_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    fs::write(&file, b"\xef\xbb\xbfThe rabbit").unwrap();
    let of_file = output(&["generate", "--file", path(&file), "-n", "3", "--greedy"]);
    assert_eq!(of_file, output(&["generate", "The rabbit", "-n", "3", "--greedy"]));
    fs::write(&file, b"\xff\xfeT\0h\0").unwrap();
    refused(&["generate", "--file", path(&file)], &["prompt.txt", "UTF-16"]);
}
