//! `openelm pull` as a user runs it, and models by their names.

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use openelm_testing::checkpoint;
use openelm_testing::server::{Request, Server, Step, file, head, reply};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn openelm(server: &Server, home: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.args(arguments).env_clear().env("HF_HOME", home.path());
    command.env("HF_ENDPOINT", server.url()).env("OPENELM_CORENET_ENDPOINT", server.url());
    command
}

/// Runs what must fail: with one sentence on stderr at its end that has all `parts`.
#[track_caller]
fn refused(command: &mut Command, parts: &[&str]) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(stdout.is_empty());
    let message = text.lines().last().unwrap();
    assert!(message.starts_with("error: "), "{text}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// A hub with the model that is compiled into the command.
fn storyteller(request: &Request) -> Vec<Step> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller");
    let names = ["config.json", "model.safetensors", "tokenizer.model"];
    if request.path == "/api/models/me/storyteller/revision/main" {
        let files = names.map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).join(",");
        return reply(200, &[], format!(r#"{{"sha":"{COMMIT}","siblings":[{files}]}}"#).as_bytes());
    }
    let Some(name) = request.path.strip_prefix(&format!("/me/storyteller/resolve/{COMMIT}/")) else {
        return reply(404, &[], b"");
    };
    file(request, &std::fs::read(folder.join(name)).unwrap(), &format!("state-of-{name}"))
}

#[test]
fn a_model_is_pulled_once_and_then_goes_by_its_name() {
    let (server, home) = (Server::start(storyteller), tempfile::tempdir().unwrap());
    let generate = ["generate", "Once upon a time", "-n", "5", "--greedy", "--model", "me/storyteller"];
    refused(&mut openelm(&server, &home, &generate), &["me/storyteller", "`openelm pull me/storyteller`"]);
    assert!(server.requests().is_empty(), "nothing is fetched unasked");

    let pulled = openelm(&server, &home, &["pull", "me/storyteller"]).output().unwrap();
    let shown = String::from_utf8(pulled.stderr).unwrap();
    assert!(pulled.status.success(), "{shown}");
    assert!(shown.contains("me/storyteller: 3 files") && shown.contains("sha256"), "{shown}");
    let folder = String::from_utf8(pulled.stdout).unwrap();
    assert!(Path::new(folder.trim()).join("model.safetensors").exists(), "{folder}");

    server.requests();
    let by_name = openelm(&server, &home, &generate).output().unwrap();
    assert!(by_name.status.success(), "{}", String::from_utf8_lossy(&by_name.stderr));
    assert!(server.requests().is_empty());
    let built_in = openelm(&server, &home, &generate[..5]).output().unwrap();
    assert_eq!(by_name.stdout, built_in.stdout);
    let logits = openelm(&server, &home, &["logits", "me/storyteller", "--text", "Once"]).output().unwrap();
    assert!(logits.status.success(), "{}", String::from_utf8_lossy(&logits.stderr));

    let again = openelm(&server, &home, &["pull", "me/storyteller"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(String::from_utf8(again.stdout).unwrap(), folder);
}

#[test]
fn what_cannot_be_pulled_is_one_sentence() {
    let (server, home) = (Server::start(|_| reply(404, &[], b"")), tempfile::tempdir().unwrap());
    refused(&mut openelm(&server, &home, &["pull", "openelm-9b"]), &["\"openelm-9b\"", "openelm pull --list"]);
    refused(&mut openelm(&server, &home, &["pull", "me/nothing"]), &["has no model me/nothing"]);
    refused(&mut openelm(&server, &home, &["pull", "corenet/270M"]), &["checkpoint_average.pt", "404"]);
    refused(openelm(&server, &home, &["pull", "a/b"]).env("HF_HUB_OFFLINE", "1"), &["a/b", "HF_HUB_OFFLINE"]);
    refused(
        openelm(&server, &home, &["pull", "a/b", "--retries", "0"]).env("HF_ENDPOINT", "http://127.0.0.1:1"),
        &["http://127.0.0.1:1", "cannot be reached"],
    );
    refused(openelm(&server, &home, &["pull", "a/b"]).env("SSL_CERT_FILE", "/nowhere.pem"), &["/nowhere.pem"]);
}

#[test]
fn the_list_shows_the_names() {
    let (server, home) = (Server::start(|_| Vec::new()), tempfile::tempdir().unwrap());
    for arguments in [["pull", "--list"], ["pull", "--help"]] {
        let shown = openelm(&server, &home, &arguments).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        for name in ["apple/OpenELM-1_1B-Instruct", "openelm-270m", "corenet/mlx/SIZE[-4bit]", "corenet/dora/SIZE"] {
            assert!(text.contains(name), "{name} is not in: {text}");
        }
    }
    assert!(server.requests().is_empty());
}

/// A server that sends 5000 bytes of a file of 10000 and then dawdles; asked for the rest, it sends that.
#[cfg(unix)]
fn dawdler() -> Server {
    Server::start(|request| match request.header("range") {
        Some(_) => file(request, &checkpoint(10_000), "a"),
        None => vec![
            head(200, &[("ETag", "\"a\""), ("Content-Length", "10000")]),
            Step::Send(checkpoint(10_000)[..5000].to_vec()),
            Step::Pause(Duration::from_secs(20)),
        ],
    })
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_came_and_the_same_command_goes_on() {
    if openelm_testing::interrupts_are_ignored() {
        return;
    }
    let (server, home) = (dawdler(), tempfile::tempdir().unwrap());
    let arguments = ["pull", "corenet/lora/270M"];
    let mut child = openelm(&server, &home, &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let folder = home.path().join("openelm/corenet/lora/270M");
    let part = folder.join("openelm_lora_270M.pt.part");
    while std::fs::metadata(&part).map_or(0, |data| data.len()) < 5000 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut shown = String::new();
    child.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(shown.contains("the same command goes on from here"), "{shown}");

    server.requests();
    let finished = openelm(&server, &home, &arguments).output().unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    assert_eq!(server.requests()[0].header("range"), Some("bytes=5000-"));
    assert_eq!(std::fs::read(folder.join("openelm_lora_270M.pt")).unwrap(), checkpoint(10_000));
    assert!(!part.exists());
}

/// A limit on the size of files stands in for a full disk: writing fails in the middle, with what the system says.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_the_same_command_goes_on() {
    let (server, home) =
        (Server::start(|request| file(request, &checkpoint(100_000), "a")), tempfile::tempdir().unwrap());
    let name = "corenet/dora/3B";
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" pull corenet/dora/3B", env!("CARGO_BIN_EXE_openelm")]);
    limited.env("HF_HOME", home.path()).env("OPENELM_CORENET_ENDPOINT", server.url());
    refused(&mut limited, &["openelm_dora_3B.pt.part", "once that is mended, the same command goes on"]);
    server.requests();
    let finished = openelm(&server, &home, &["pull", name]).output().unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    assert!(server.requests()[0].header("range").is_some());
}
