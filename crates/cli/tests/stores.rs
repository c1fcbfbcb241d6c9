//! Training from buckets, with credentials from the environment.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "object-store")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use openelm_testing::bucket::bucket;
use openelm_testing::golden;
use openelm_testing::server::{Server, reply};

/// Five documents in two folders; only three match `**/*.jsonl`.
fn objects() -> BTreeMap<String, Vec<u8>> {
    let document = |i: usize| format!("{{\"text\": \"In book {i} the fox met {} geese.\"}}\n", i * 7 % 11);
    let names = ["a/0.jsonl", "a/1.jsonl", "a/b/2 %.jsonl", "a/notes.md", "c/3.jsonl"];
    (0..).zip(names).map(|(i, name)| (name.to_owned(), document(i).repeat(20).into_bytes())).collect()
}

/// Trains on `source` and returns the weights.
fn weights(folder: &Path, source: &str, set_up: impl Fn(&mut Command)) -> Vec<u8> {
    let output = folder.join("out");
    let _ = fs::remove_dir_all(&output);
    let recipe = folder.join("recipe.toml");
    let text = format!(
        r#"
output = "{}"
[model]
layers = 2
dim = 32
head_dim = 8
gqa_groups = 2
ffn_divisor = 8
[tokenizer]
path = "{}"
[data]
sources = [{{ path = "{source}" }}]
retry_seconds = 1
[train]
sequence_length = 16
batch_size = 2
steps = 3
[schedule]
max_lr = 1e-2
warmup_steps = 0
"#,
        output.display(),
        golden("tokenizer_small/tokenizer.model").display()
    );
    fs::write(&recipe, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.arg("pretrain").arg(&recipe).args(["--threads", "1"]);
    set_up(&mut command);
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs::read(output.join("checkpoints/step-00000003/model.safetensors")).unwrap()
}

#[test]
fn a_bucket_is_read_like_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (key, content) in objects() {
        let file = folder.path().join(key);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let local = weights(folder.path(), &format!("{}/a/**/*.jsonl", folder.path().display()), |_| ());

    let server = Server::start(|request| match request.header("authorization") {
        Some(signed) if signed.starts_with("AWS4-HMAC-SHA256 Credential=fox/") => bucket(request, "corpus", &objects()),
        _ => reply(403, &[], b"<Error><Code>AccessDenied</Code></Error>"),
    });
    let s3 = weights(folder.path(), "s3://corpus/a/**/*.jsonl", |command| {
        command.envs([
            ("AWS_ENDPOINT", server.url().as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "fox"),
            ("AWS_SECRET_ACCESS_KEY", "geese"),
        ]);
    });
    assert!(s3 == local, "the bucket's documents are not those of the folder");
    let listings = server.requests().iter().filter(|request| request.path.contains("list-type=2")).count();
    assert_eq!(listings, 2, "four keys below the prefix, two in a page");

    let server = Server::start(|request| bucket(request, "corpus", &objects()));
    let account = format!(
        r#"{{"gcs_base_url": "{}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#,
        server.url()
    );
    let gs = weights(folder.path(), "gs://corpus/a/**/*.jsonl", |command| {
        command.env("GOOGLE_SERVICE_ACCOUNT_KEY", &account).env("GOOGLE_ALLOW_HTTP", "true");
    });
    assert!(gs == local, "the bucket's documents are not those of the folder");
}
