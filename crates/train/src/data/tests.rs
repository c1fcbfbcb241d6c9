use std::path::Path;
use std::sync::Arc;

use openelm_model::{Tokenizer, clean};
use openelm_testing::{json, npz, shared};
use proptest::prelude::*;

use super::*;

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn corpus(path: &Path, text_key: &str) -> CorpusConfig {
    let source = Source { text_key: text_key.to_owned(), ..Source::new(path.display().to_string()) };
    CorpusConfig { shuffle_buffer: 0, ..CorpusConfig::new(vec![source]) }
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
    let blank = " \n".repeat(10 << 10);
    write(folder.path(), "gaps.txt", format!("{blank}one\n{blank}{blank}two\n\nthree\n{blank}"));
    assert_eq!(texts(&at("gaps.txt"), "text").unwrap(), ["one", "two\n\nthree"], "blank lines are no end");
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

/// Rows of `length` ids, one per byte of text; packed rows have no padding.
fn stream(config: &CorpusConfig, length: usize, endless: bool) -> RowStream {
    RowStream::new(config.clone(), Arc::new(bytes), length, PAD, 5, endless).unwrap()
}

const PAD: u32 = 999;

fn rows(stream: &mut RowStream, count: usize) -> Vec<Row> {
    stream.take(count).unwrap()
}

fn through_json(state: &StreamState) -> StreamState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

#[test]
fn one_pass_predicts_every_id_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = three_files(folder.path());
    let all: Vec<u32> = documents(&config).unwrap().flat_map(|text| bytes(&text.unwrap())).collect();
    let mut stream = stream(&config, 17, false);
    let mut targets = Vec::new();
    while let Some(Row { ids, .. }) = rows(&mut stream, 1).pop() {
        assert_eq!(ids.len(), 17);
        assert_eq!(ids[0], all[targets.len()]);
        targets.extend_from_slice(&ids[1..]);
    }
    assert_eq!(targets, all[1..=targets.len()]);
    assert!(all.len() - targets.len() <= 17, "only an incomplete row is left out");
    let counts = stream.counts()[0];
    assert_eq!((counts.documents, counts.tokens), (27, all.len() as u64));
    // As a validation does whose last batch is short.
    assert_eq!(stream.take(3).unwrap(), [], "an ended stream stays at its end");
}

#[test]
fn short_documents_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = three_files(folder.path());
    config.min_characters = 30;
    let mut once = stream(&config, 17, false);
    rows(&mut once, 10_000);
    let by_characters = once.counts()[0];
    assert!(by_characters.dropped > 0 && by_characters.documents + by_characters.dropped == 27);
    config.min_characters = 0;
    config.min_tokens = 10_000;
    assert!(stream(&config, 17, true).take(1).unwrap_err().to_string().contains("no row of 17 tokens"));
}

#[test]
fn files_without_documents_end_an_endless_stream_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.jsonl", "\n\n");
    let config = corpus(&folder.path().join("a.jsonl"), "text");
    let message = stream(&config, 17, true).take(1).unwrap_err().to_string();
    assert!(message.contains("a.jsonl: these files hold no document"), "{message}");

    // Of weighted sources the one that is empty is named, and it alone.
    let mut mixed = mixed(folder.path(), [Some(1.0), Some(1.0)]);
    write(folder.path(), "long.jsonl", "\n");
    mixed.shuffle_buffer = 4;
    let message = stream(&mixed, 17, true).take(50).unwrap_err().to_string();
    assert!(message.contains("long.jsonl: these files hold no document") && !message.contains("short"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn a_restored_stream_goes_on_as_if_never_stopped(
        first in 0usize..150,
        second in 0usize..150,
        buffer in 0usize..40,
        workers in 1usize..4,
        weighted: bool,
        corenet: bool,
        deduplicate: bool,
        separate: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = three_files(folder.path());
        config.shuffle_buffer = buffer;
        config.deduplicate = deduplicate;
        config.packing = if separate { Packing::Separate } else { Packing::Joined };
        if corenet {
            config.parity = Some(Parity::CoreNet);
        } else if weighted {
            let source = |file: usize| Source {
                weight: Some(0.5 + file as f64),
                ..Source::new(folder.path().join(format!("{file}.jsonl")).display().to_string())
            };
            config.sources = (0..3).map(source).collect();
        }
        let mut undisturbed = stream(&config, 9, true);
        let expected = rows(&mut undisturbed, first + second + 20);
        config.workers = workers;
        let mut found = Vec::new();
        let mut state = stream(&config, 9, true).state().clone();
        // Twice in a row, through the bytes that a checkpoint holds.
        for count in [first, second, 20] {
            let mut stream = stream(&config, 9, true);
            stream.restore(through_json(&state)).unwrap();
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
    let state = stream(&config, 9, true).state().clone();
    let refused = |expected: &str| {
        let message = stream(&config, 9, true).restore(state.clone()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    write(folder.path(), "1.jsonl", "{\"text\": \"other\"}\n");
    refused("1.jsonl had");
    write(folder.path(), "3.jsonl", "{\"text\": \"more\"}\n");
    refused("it had 3 files and has 4 now");
}

#[test]
fn an_edit_that_keeps_the_size_is_noticed_and_accepted_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let config = three_files(folder.path());
    let mut before = stream(&config, 9, true);
    before.take(5).unwrap();
    let state = before.state().clone();
    let path = folder.path().join("1.jsonl");
    let edited = std::fs::read_to_string(&path).unwrap().replace("document", "DOCUMENT");
    write(folder.path(), "1.jsonl", edited);
    // A file system may keep whole seconds.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(2)).unwrap();
    let message = stream(&config, 9, true).restore(state.clone()).unwrap_err().to_string();
    assert!(message.contains("1.jsonl was modified") && message.contains("on_change"), "{message}");

    let accepting = CorpusConfig { on_change: OnChange::Accept, ..config.clone() };
    let mut resumed = stream(&accepting, 9, true);
    resumed.restore(through_json(&state)).unwrap();
    resumed.take(50).unwrap();
    stream(&config, 9, true).restore(through_json(resumed.state())).unwrap();

    // States of before files had versions: size and path must do.
    let mut old = serde_json::to_value(&state).unwrap();
    for file in old["files"].as_array_mut().unwrap() {
        file.as_object_mut().unwrap().remove("version").unwrap();
    }
    stream(&config, 9, true).restore(serde_json::from_value(old).unwrap()).unwrap();
}

#[test]
fn a_file_that_changes_within_a_run_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = CorpusConfig { on_error: OnError::Skip, ..three_files(folder.path()) };
    let mut running = stream(&config, 9, true);
    write(folder.path(), "2.jsonl", "{\"text\": \"another\"}\n");
    assert!(matches!(running.take(1000), Err(DataError::Changed { .. })));
}

#[cfg(not(feature = "object-store"))]
#[test]
fn a_url_is_refused_with_what_to_build() {
    let message = texts(Path::new("s3://bucket/a.jsonl"), "text").unwrap_err().to_string();
    assert_eq!(message, "s3://bucket/a.jsonl: this build reads no object stores; build with `--features object-store`");
}

/// Two sources of documents of different lengths, with weights.
fn mixed(folder: &Path, weights: [Option<f64>; 2]) -> CorpusConfig {
    let line = |length: usize| format!("{{\"text\": \"{}\"}}\n", "x".repeat(length));
    write(folder, "short.jsonl", line(20).repeat(7));
    write(folder, "long.jsonl", line(150).repeat(40));
    let source = |(name, weight): (&str, _)| Source { weight, ..Source::new(folder.join(name).display().to_string()) };
    let sources = ["short.jsonl", "long.jsonl"].into_iter().zip(weights).map(source).collect();
    CorpusConfig { shuffle_buffer: 0, ..CorpusConfig::new(sources) }
}

#[test]
fn sources_are_mixed_by_tokens_in_proportion_to_their_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut stream = stream(&mixed(folder.path(), [Some(3.0), Some(1.0)]), 17, true);
    rows(&mut stream, 1000);
    let [short, long] = stream.counts()[..] else { panic!("two sources") };
    // The share is kept to within one document of the longer kind.
    assert!((short.tokens as f64 / 3.0 - long.tokens as f64).abs() <= 152.0, "{short:?} {long:?}");
    assert_eq!(short.epochs, (short.documents - 1) / 7, "each source has epochs of its own");
    assert_eq!(long.epochs, (long.documents - 1) / 40);
    assert_eq!(stream.epochs(), long.epochs);
}

#[test]
fn weights_that_make_no_mix_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let says = |weights, expected: &str| {
        let stream = RowStream::new(mixed(folder.path(), weights), Arc::new(bytes), 17, PAD, 5, true);
        let message = stream.err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    };
    says([Some(1.0), None], "1 of 2 sources have a weight");
    says([Some(1.0), Some(0.0)], "a weight is 0");
    says([Some(f64::NAN), Some(1.0)], "a weight is NaN");
}

#[test]
fn only_the_first_of_equal_documents_is_read_in_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |texts: &[&str]| texts.iter().map(|text| format!("{{\"text\": \"{text}\"}}\n")).collect::<String>();
    write(folder.path(), "a.jsonl", lines(&["one", "two", "one"]));
    write(folder.path(), "b.jsonl", lines(&["two", "three", "Two"]));
    let mut config = corpus(&folder.path().join("*.jsonl"), "text");
    config.deduplicate = true;
    let mut once = stream(&config, 3, false);
    rows(&mut once, 10_000);
    assert_eq!((once.counts()[0].documents, once.counts()[0].duplicates), (4, 2));
    let mut endless = stream(&config, 3, true);
    while endless.epochs() < 3 {
        rows(&mut endless, 1);
    }
    let counts = endless.counts()[0];
    assert!((12..16).contains(&counts.documents) && (6..8).contains(&counts.duplicates), "{counts:?}");
}

#[test]
fn a_damaged_file_stops_the_stream_with_nothing_lost_or_is_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = three_files(folder.path());
    let whole = std::fs::read_to_string(folder.path().join("1.jsonl")).unwrap();
    let damaged: String = whole.lines().take(4).map(|line| format!("{line}\n")).chain(["{\"te".to_owned()]).collect();
    write(folder.path(), "1.jsonl", damaged);

    let mut stopped = stream(&config, 17, false);
    let error = stopped.take(10_000).unwrap_err().to_string();
    assert!(error.contains("1.jsonl, line 5: not JSON"), "{error}");
    config.on_error = OnError::Skip;
    let mut skipping = stream(&config, 17, false);
    let expected = rows(&mut skipping, 10_000);
    assert_eq!((skipping.counts()[0].documents, skipping.counts()[0].damaged_documents), (22, 1));
    // What stopped goes on from its state with the rows that it had not given out.
    let mut resumed = stream(&config, 17, false);
    resumed.restore(through_json(stopped.state())).unwrap();
    assert_eq!(rows(&mut resumed, 10_000), expected);

    config.sources[0].path = folder.path().join("1.jsonl").display().to_string();
    write(folder.path(), "1.jsonl", "not JSON");
    assert!(matches!(stream(&config, 17, true).take(1), Err(DataError::NoDocuments { .. })));
}

#[test]
fn rows_know_where_documents_begin() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = three_files(folder.path());
    config.packing = Packing::Separate;
    config.shuffle_buffer = 5;
    let rows = rows(&mut stream(&config, 65, true), 50);
    let batch = Batch::from_rows(&rows);
    let starts = batch.document_starts.unwrap();
    for (row, inputs) in batch.inputs.chunks(64).enumerate() {
        let mut expected = 0;
        for (place, &id) in inputs.iter().enumerate() {
            // BOS is at the beginning of each document and nowhere else.
            expected = if id == 1 { place } else { expected };
            assert_eq!(starts[row * 64 + place] as usize, expected);
        }
    }
    config.packing = Packing::Joined;
    assert_eq!(Batch::from_rows(&stream(&config, 65, true).take(3).unwrap()).document_starts, None);
}

#[test]
fn numbered_files_are_found_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for id in 8..=11 {
        write(folder.path(), &format!("part-{id:03}.jsonl"), format!("{{\"text\": \"{id}\"}}\n"));
        write(folder.path(), &format!("{id}.jsonl"), format!("{{\"text\": \"{id}\"}}\n"));
    }
    let found = |name: &str, range: Option<[u64; 2]>| {
        let mut config = corpus(&folder.path().join(name), "text");
        config.sources[0].file_id_range = range;
        documents(&config).map(|texts| texts.map(Result::unwrap).collect::<Vec<_>>()).map_err(|e| e.to_string())
    };
    assert_eq!(found("part-{file_id:03d}.jsonl", Some([8, 11])).unwrap(), ["8", "9", "10"]);
    assert_eq!(found("{file_id}.jsonl", Some([9, 12])).unwrap(), ["9", "10", "11"]);
    assert!(found("{file_id}.jsonl", Some([9, 13])).unwrap_err().contains("12.jsonl"));
    assert!(found("{file_id}.jsonl", None).unwrap_err().contains("needs file_id_range"));
    assert!(found("{file_id:x}.jsonl", Some([9, 12])).unwrap_err().contains("{file_id:05d}"));
    assert!(found("*.jsonl", Some([9, 12])).unwrap_err().contains("holds no {file_id}"));
    assert!(found("{file_id}.jsonl", Some([9, 9])).unwrap_err().contains("is empty"));
}

#[test]
fn corenets_pipeline_takes_no_memory_for_a_shuffle_buffer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    let text = "output = \"out\"\n[model]\nlayers = 2\ndim = 64\n[tokenizer]\npath = \"t\"\n\
                [data]\nsources = [{ path = \"books\" }]\nshuffle_buffer = 500\n\
                [train]\nsequence_length = 99\nbatch_size = 1\nsteps = 1\n\
                [schedule]\nmax_lr = 1e-3\nwarmup_steps = 0\n";
    std::fs::write(&path, text).unwrap();
    let data = |sets: &[String]| {
        let recipe = crate::Recipe::load(&path, sets).unwrap();
        crate::TrainingFootprint::new(&recipe.model_config(100).unwrap(), &recipe, 1).data
    };
    assert_eq!(data(&[]), 2 * 500 * 100 * 4);
    assert_eq!(data(&["data.parity=corenet".to_owned()]), 0);
}

/// CoreNet's `GeneralLMDataset` on the corpora of the reference data, with LLaMA's tokenizer.
#[test]
fn rows_are_corenets() {
    let Some(folder) = shared("golden/data") else { return };
    let Some(model) = shared("assets/tokenizer/llama.model") else { return };
    let tokenizer = Tokenizer::open(&model).unwrap();
    let encode: Encode = Arc::new(move |text| tokenizer.encode_with(&clean(text), true, true));
    let settings = json(&folder.join("general_lm.json"));
    let arrays = npz(&folder.join("general_lm.npz"));
    let source = |name: &str, file_id_range, text_key: &str| Source {
        file_id_range,
        text_key: text_key.to_owned(),
        ..Source::new(folder.join("corpora").join(name).display().to_string())
    };
    let sources = vec![
        source("corp-{file_id:05d}.parquet", Some([0, 2]), "content"),
        source("book.jsonl", None, "text"),
        source("web_{file_id}.json.gz", Some([0, 1]), "text"),
    ];
    for case in ["recipe_like_len128", "small_split", "no_filter"] {
        let number = |key: &str| settings[case][key].as_u64().unwrap() as usize;
        let config = CorpusConfig {
            min_characters: number("min_characters_per_text"),
            min_tokens: number("min_tokens_per_text"),
            parity: Some(Parity::CoreNet),
            ..CorpusConfig::new(sources.clone())
        };
        let (time, words) = (number("sequence_length"), number("document_split_size"));
        let pad = number("pad_token_id") as u32;
        let stream = RowStream::new(config, encode.clone(), time + 1, pad, 0, false).unwrap();
        let rows = stream.pieces_of(words).take(10_000).unwrap();
        assert_eq!(rows.len(), number("n_samples"), "{case}");
        let batch = Batch::from_rows(&rows);
        assert_eq!(batch.inputs, arrays[&format!("{case}.samples")].ids(), "{case}");
        assert_eq!(batch.targets, arrays[&format!("{case}.targets")].ids(), "{case}");
    }
}
