use std::path::Path;

use openelm_testing::shared;
use proptest::prelude::*;

use super::*;

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn corpus(path: &Path, text_key: &str) -> CorpusConfig {
    CorpusConfig {
        sources: vec![Source { path: path.display().to_string(), text_key: text_key.to_owned(), format: None }],
        min_characters: 0,
        min_tokens: 0,
        shuffle_buffer: 0,
    }
}

fn texts(path: &Path, text_key: &str) -> Result<Vec<String>, DataError> {
    documents(&corpus(path, text_key))?.collect()
}

/// One id per byte, between BOS 1 and EOS 2.
fn bytes(text: &str) -> Vec<u32> {
    [1].into_iter().chain(text.bytes().map(|b| u32::from(b) + 3)).chain([2]).collect()
}

#[test]
fn every_format_yields_its_documents() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let lines = "{\"text\": \"one\", \"n\": 1}\n\n{\"text\": \"two\\n2\"}";
    write(folder.path(), "a.jsonl", lines);
    write(folder.path(), "b.jsonl.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, lines.as_bytes()).unwrap();
    write(folder.path(), "c.json.gz", gz.finish().unwrap());
    for name in ["a.jsonl", "b.jsonl.zst", "c.json.gz"] {
        assert_eq!(texts(&at(name), "text").unwrap(), ["one", "two\n2"], "{name}");
    }
    assert_eq!(texts(&at("*.json*"), "text").unwrap().len(), 6);

    let paragraph = format!("{}\n\n", "words ".repeat(1000));
    write(folder.path(), "book.txt", paragraph.repeat(10));
    let pieces = texts(&at("book.txt"), "text").unwrap();
    assert_eq!(pieces.len(), 4, "a book is cut at blank lines");
    assert_eq!(pieces.iter().map(|p| p.matches("words").count()).sum::<usize>(), 10_000);
    write(folder.path(), "long.md", "x".repeat(3 << 20));
    assert_eq!(texts(&at("long.md"), "text").unwrap()[0].len(), 3 << 20);
}

#[test]
fn real_shards_are_read() {
    let Some(folder) = shared("assets/formats") else { return };
    let count = |name: &str, key: &str| texts(&folder.join(name), key).unwrap().len();
    assert_eq!(count("redpajama_arxiv_sample.jsonl", "text"), 20);
    assert_eq!(count("tests/data/multiple_files/*.jsonl", "text"), 20);
    assert_eq!(count("tests/data/multiple_files/*.jsonl.gz", "text"), 20);
    assert!(count("tests/data/provided/documents/000.json.gz", "text") > 0);
    let mut parquet = ["gzip", "snappy", "zstd"]
        .map(|kind| texts(&folder.join(format!("refinedweb_form_{kind}.parquet")), "content").unwrap());
    assert_eq!(parquet[0].len(), 300);
    assert_eq!(parquet[0], parquet[1]);
    assert_eq!(parquet[0], parquet[2]);
    let source = parquet[0].pop().unwrap();
    assert!(source.len() > 20);
    let column = texts(&folder.join("refinedweb_form_zstd.parquet"), "text").unwrap_err().to_string();
    assert!(column.contains("no column \"text\"") && column.contains("content"), "{column}");
    let kind = texts(&folder.join("refinedweb_form_zstd.parquet"), "timestamp").unwrap_err().to_string();
    assert!(kind.contains("not one of texts"), "{kind}");
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let says = |name: &str, bytes: &[u8], expected: &str| {
        write(folder.path(), name, bytes);
        let message = texts(&folder.path().join(name), "text").unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains(name), "{message}");
    };
    says("a.jsonl", b"{\"text\": \"x\"}\nnot json\n", "line 2: not JSON");
    says("b.jsonl", b"[1]\n", "line 1: not a JSON object");
    says("c.jsonl", b"{\"body\": \"x\", \"id\": 1}\n", "no field \"text\"; there are body, id");
    says("d.jsonl", b"{\"text\": 7}\n", "the field \"text\" is not a text");
    says("e.jsonl", b"{\"text\": \"\xff\"}\n", "line 1: not UTF-8 from byte 10 on");
    says("f.jsonl.gz", b"{\"text\": \"x\"}\n", "its name says gzip");
    says("g.jsonl.zst", b"plain", "its name says zstd");
    says("h.parquet", b"{\"text\": \"x\"}\n", "not a sound Parquet file");
    says("i.bin", b"", "cannot tell the format");
    let whole = zstd::encode_all(&b"{\"text\": \"a rather long line of text\"}\n".repeat(100)[..], 3).unwrap();
    says("j.jsonl.zst", &whole[..whole.len() - 5], "cannot be unpacked");
    let missing = texts(&folder.path().join("nothing*.jsonl"), "text").unwrap_err().to_string();
    assert!(missing.contains("no file matches"), "{missing}");
}

/// A corpus of three files with documents that tell where they come from.
fn three_files(folder: &Path) -> CorpusConfig {
    for file in 0..3 {
        let line = |i: usize| format!("{{\"text\": \"file {file} document {i} {}\"}}\n", "etc ".repeat(i * 7 % 11));
        write(folder, &format!("{file}.jsonl"), (0..9).map(line).collect::<String>());
    }
    corpus(&folder.join("*.jsonl"), "text")
}

fn rows(stream: &mut RowStream, count: usize) -> Vec<Vec<u32>> {
    (0..count).map(|_| stream.next_row().unwrap().unwrap()).collect()
}

#[test]
fn one_pass_predicts_every_id_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = three_files(folder.path());
    let all: Vec<u32> = documents(&config).unwrap().flat_map(|text| bytes(&text.unwrap())).collect();
    let mut stream = RowStream::new(config, Box::new(bytes), 17, 1, false).unwrap();
    let mut targets = Vec::new();
    while let Some(row) = stream.next_row().unwrap() {
        assert_eq!(row.len(), 17);
        assert_eq!(row[0], all[targets.len()]);
        targets.extend_from_slice(&row[1..]);
    }
    assert_eq!(targets, all[1..=targets.len()]);
    assert!(all.len() - targets.len() <= 17, "only an incomplete row is left out");
    assert_eq!(stream.progress().1.documents, 27);
}

#[test]
fn short_documents_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = three_files(folder.path());
    config.min_characters = 30;
    let mut stream = RowStream::new(config.clone(), Box::new(bytes), 17, 1, false).unwrap();
    while stream.next_row().unwrap().is_some() {}
    let by_characters = stream.progress().1;
    assert!(by_characters.dropped > 0 && by_characters.documents + by_characters.dropped == 27);
    config.min_characters = 0;
    config.min_tokens = 10_000;
    let mut stream = RowStream::new(config, Box::new(bytes), 17, 1, true).unwrap();
    assert!(stream.next_row().unwrap_err().to_string().contains("no row of 17 tokens"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn a_restored_stream_goes_on_as_if_never_stopped(first in 0usize..150, second in 0usize..150, buffer in 0usize..40) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = three_files(folder.path());
        config.shuffle_buffer = buffer;
        let stream = || RowStream::new(config.clone(), Box::new(bytes), 9, 5, true).unwrap();
        let mut undisturbed = stream();
        let expected = rows(&mut undisturbed, first + second + 20);
        let mut found = rows(&mut stream(), 0);
        let mut state = stream().state().clone();
        // Twice in a row, through the bytes that a checkpoint holds.
        for count in [first, second, 20] {
            let mut stream = stream();
            stream.restore(serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap()).unwrap();
            found.extend(rows(&mut stream, count));
            state = stream.state().clone();
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(&state, undisturbed.state());
    }
}

#[test]
fn a_changed_corpus_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let config = three_files(folder.path());
    let stream = || RowStream::new(config.clone(), Box::new(bytes), 9, 5, true).unwrap();
    let state = stream().state().clone();
    write(folder.path(), "1.jsonl", "{\"text\": \"other\"}\n");
    assert!(stream().restore(state.clone()).unwrap_err().to_string().contains("1.jsonl"));
    write(folder.path(), "3.jsonl", "{\"text\": \"more\"}\n");
    assert!(matches!(stream().restore(state).unwrap_err(), DataError::Changed { .. }));
}
