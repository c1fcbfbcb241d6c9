//! Corpora on servers of their own: honest ones, and some that break off, are overloaded, vanish or change what they have.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "object-store")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use openelm_model::kernels::Threads;
use openelm_testing::golden;
use openelm_testing::server::{Request, Server, Step, cut, file, reply};
use openelm_train::Recipe;
use openelm_train::data::{CorpusConfig, DataError, Encode, OnChange, OnError, RowStream, Source, documents};
use openelm_train::pretrain::pretrain;
use openelm_train::run::{Event, Outcome, RunError};

/// A corpus under `path` that a server which does not answer is asked for only once.
fn corpus(path: String) -> CorpusConfig {
    CorpusConfig { retry_seconds: 0, shuffle_buffer: 0, ..CorpusConfig::new(vec![Source::new(path)]) }
}

fn texts(config: &CorpusConfig) -> Result<Vec<String>, DataError> {
    documents(config)?.collect()
}

/// `count` lines, each told from the others, of about 1000 bytes.
fn lines(count: usize) -> String {
    (0..count).map(|i| format!("{{\"text\": \"line {i} {}\"}}\n", "and so on ".repeat(98))).collect()
}

/// A server whose answers are told by their number.
fn answers(answer: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| answer(count.fetch_add(1, Ordering::SeqCst), request))
}

/// A server of files by their path, each known by its length.
fn serve(files: BTreeMap<String, Vec<u8>>) -> Server {
    Server::start(move |request| match files.get(&request.path) {
        Some(content) => file(request, content, &content.len().to_string()),
        None => reply(404, &[], b""),
    })
}

#[test]
fn every_format_is_read_from_a_web_server() {
    let plain = lines(20).into_bytes();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&plain).unwrap();
    let server = serve(BTreeMap::from([
        ("/a.jsonl".to_owned(), plain.clone()),
        ("/in/b%20b.jsonl.gz".to_owned(), gz.finish().unwrap()),
        ("/c.jsonl.zst".to_owned(), zstd::encode_all(&plain[..], 3).unwrap()),
        ("/book-07.txt".to_owned(), b"a book".to_vec()),
        ("/book-08.txt".to_owned(), b"another".to_vec()),
    ]));
    let found = |path: &str| texts(&corpus(format!("{}/{path}", server.url()))).unwrap();
    let expected = found("a.jsonl");
    assert_eq!(expected.len(), 20);
    assert!(expected[19].starts_with("line 19 and so on"));
    assert_eq!(found("in/b%20b.jsonl.gz"), expected);
    assert_eq!(found("c.jsonl.zst"), expected);

    let mut books = corpus(format!("{}/book-{{file_id:02d}}.txt", server.url()));
    books.sources[0].file_id_range = Some([7, 9]);
    assert_eq!(texts(&books).unwrap(), ["a book", "another"]);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read_in_parts() {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;

    let expected: Vec<String> = (0..9000).map(|i| format!("row {i} {}", "word ".repeat(200 + i % 7))).collect();
    let schema = parquet::schema::parser::parse_message_type("message m { required binary text (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    for rows in expected.chunks(4000) {
        let values: Vec<ByteArray> = rows.iter().map(|text| text.as_str().into()).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    let whole = writer.into_inner().unwrap();
    let size = whole.len();
    assert!(size > 6 << 20, "smaller than what is asked for at once: {size}");
    let server = serve(BTreeMap::from([("/a.parquet".to_owned(), whole)]));
    assert_eq!(texts(&corpus(format!("{}/a.parquet", server.url()))).unwrap(), expected);
    let requests = server.requests();
    assert!(requests.len() < 12, "{} requests for {size} bytes", requests.len());
}

#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let content = lines(5000).into_bytes();
    for has_tag in [true, false] {
        let served = content.clone();
        let server = answers(move |n, request| {
            let mut answer = file(request, &served, "a");
            if !has_tag && let Some(Step::Send(head)) = answer.first_mut() {
                *head = String::from_utf8(head.clone()).unwrap().replace("ETag: \"a\"\r\n", "").into_bytes();
            }
            if n % 2 == 1 { cut(answer, 2_000_000) } else { answer }
        });
        let config = CorpusConfig { retry_seconds: 60, ..corpus(format!("{}/a.jsonl", server.url())) };
        let found = texts(&config).unwrap();
        assert_eq!(found.len(), 5000);
        assert!((0..).zip(&found).all(|(i, text): (usize, _)| text.starts_with(&format!("line {i} "))));
        let starts: Vec<String> =
            server.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
        assert_eq!(starts[..2], ["bytes=0-4194303".to_owned(), "bytes=2000000-4194303".to_owned()], "{starts:?}");
    }
}

#[test]
fn an_overloaded_server_is_asked_again() {
    let server = answers(|n, request| match n {
        // Once for each of the two requests of a file, then twice.
        0 | 2 | 3 => reply(503, &[], b"busy"),
        _ => file(request, &lines(3).into_bytes(), "a"),
    });
    let config = CorpusConfig { retry_seconds: 60, ..corpus(format!("{}/a.jsonl", server.url())) };
    assert_eq!(texts(&config).unwrap().len(), 3);
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn what_cannot_be_read_is_named() {
    let server = Server::start(|request| match request.path.as_str() {
        "/secret.jsonl" => reply(403, &[], b"no"),
        "/busy.jsonl" => reply(503, &[], b"overloaded"),
        "/whole.jsonl" if request.method == "GET" => reply(200, &[], b"{}"),
        "/whole.jsonl" => file(request, b"{}", "a"),
        _ => reply(404, &[], b""),
    });
    let says = |path: &str, expected: &str| {
        let message = texts(&corpus(path.to_owned())).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(path), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    };
    let at = |name: &str| format!("{}/{name}", server.url());
    says(&at("none.jsonl"), "no file matches");
    says(&at("secret.jsonl"), "refuses access");
    says(&at("busy.jsonl"), "503");
    says(&at("whole.jsonl"), "gives no parts of files");
    says(&at("*.jsonl"), "does not list its files");
    says("ftp://host/a.jsonl", "ftp is not known; there are s3, gs, https and http");
    says("s3://bucket", "no URL of an object");
    drop(server);
    says("http://127.0.0.1:9/a.jsonl", "refused");
}

/// Rows of bytes.
fn stream(config: &CorpusConfig) -> RowStream {
    let encode: Encode = Arc::new(|text| text.bytes().map(u32::from).collect());
    RowStream::new(config.clone(), encode, 9, 0, 5, true).unwrap()
}

#[test]
fn an_object_that_changed_is_noticed_and_accepted_on_request() {
    let changed = Arc::new(AtomicBool::new(false));
    let served = changed.clone();
    let server = Server::start(move |request| match served.load(Ordering::SeqCst) {
        false => file(request, b"{\"text\": \"how it was\"}\n", "a"),
        true => file(request, b"{\"text\": \"how it is.\"}\n", "b"),
    });
    let config = CorpusConfig { on_error: OnError::Skip, ..corpus(format!("{}/a.jsonl", server.url())) };
    let mut before = stream(&config);
    before.take(1).unwrap();
    let state = before.state().clone();

    // Between two runs.
    let mut opened = stream(&config);
    changed.store(true, Ordering::SeqCst);
    let message = stream(&config).restore(state.clone()).unwrap_err().to_string();
    assert!(message.contains("/a.jsonl was modified: a then, b now"), "{message}");
    let mut accepting = stream(&CorpusConfig { on_change: OnChange::Accept, ..config });
    accepting.restore(state).unwrap();
    accepting.take(20).unwrap();
    // What is there now is what the next checkpoint knows.
    stream(&corpus(format!("{}/a.jsonl", server.url()))).restore(accepting.state().clone()).unwrap();

    // Within a run, where it is no damage to be skipped either.
    let error = opened.take(1).unwrap_err();
    assert!(matches!(error, DataError::Changed { .. }), "{error}");
}

/// A recipe of a run on three books under `root`.
fn recipe(folder: &Path, root: &str, output: &str) -> Recipe {
    let (folder, tokenizer) = (folder.display(), golden("tokenizer_small/tokenizer.model"));
    let text = format!(
        r#"
output = "{folder}/{output}"
[model]
layers = 2
dim = 32
head_dim = 8
gqa_groups = 2
ffn_divisor = 8
[tokenizer]
path = "{}"
[data]
sources = [{{ path = "{root}/book{{file_id}}.txt", file_id_range = [0, 3] }}]
shuffle_buffer = 8
retry_seconds = 0
[train]
seed = 3
sequence_length = 16
batch_size = 3
accumulation = 2
steps = 12
[schedule]
max_lr = 1e-2
warmup_steps = 4
[checkpoint]
every = 100
"#,
        tokenizer.display()
    );
    let path = format!("{folder}/{output}.toml");
    fs::write(&path, text).unwrap();
    Recipe::load(Path::new(&path), &[]).unwrap()
}

fn run(recipe: &Recipe) -> (Result<Outcome, RunError>, usize) {
    let mut saved = 0;
    let mut watch = |event: Event| saved += usize::from(matches!(event, Event::Saved(_)));
    let outcome = pretrain(recipe, Threads::new(2), &AtomicBool::new(false), &mut watch);
    (outcome, saved)
}

#[test]
fn a_store_that_vanishes_stops_the_run_with_its_state_saved() {
    // After how many bodies the server is gone.
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let served = left.clone();
    let server = Server::start(move |request| {
        let content: String = (0..12).map(|i| format!("The fox met {} geese on day {i}.\n\n", i * 7 % 11)).collect();
        let answer = file(request, format!("{}: {content}", request.path).as_bytes(), "a");
        let gone = |left: usize| left.checked_sub(usize::from(request.method == "GET" && left < usize::MAX));
        match served.fetch_update(Ordering::SeqCst, Ordering::SeqCst, gone) {
            // It hangs up without a word.
            Err(_) => Vec::new(),
            Ok(_) => answer,
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let parts = recipe(folder.path(), &server.url(), "parts");
    left.store(4, Ordering::SeqCst);
    let (error, saved) = run(&parts);
    let message = error.unwrap_err().to_string();
    assert!(message.contains(&server.url()) && message.contains("/book"), "{message}");
    assert!(message.contains("the same command goes on"), "{message}");
    assert_eq!(saved, 1, "the state was not saved: {message}");
    left.store(usize::MAX, Ordering::SeqCst);
    let resumed = run(&parts).0.unwrap();

    let whole = run(&recipe(folder.path(), &server.url(), "whole")).0.unwrap();
    assert!(whole.finished && whole.epochs > 1, "{whole:?}");
    assert_eq!((resumed.step, &resumed.counts), (whole.step, &whole.counts));
    let files = fs::read_dir(&whole.checkpoint).unwrap().map(|entry| entry.unwrap().file_name());
    for name in files {
        let [a, b] = [&whole, &resumed].map(|run| fs::read(run.checkpoint.join(&name)).unwrap());
        assert!(a == b, "{name:?} differs");
    }
}
