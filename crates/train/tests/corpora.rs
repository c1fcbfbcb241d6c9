//! Corpora as people have them: byte order marks, padding, odd numbers, half characters, names in other encodings.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use openelm_testing::shared;
use openelm_train::data::{CorpusConfig, Counts, DataError, Format, OnChange, OnError, RowStream, Source, documents};

fn source(path: &Path) -> Source {
    Source::new(path.to_str().unwrap())
}

fn corpus(path: &Path) -> CorpusConfig {
    CorpusConfig { shuffle_buffer: 0, ..CorpusConfig::new(vec![source(path)]) }
}

fn texts(path: &Path) -> Result<Vec<String>, String> {
    let texts = documents(&corpus(path)).map_err(|e| e.to_string())?;
    texts.collect::<Result<_, DataError>>().map_err(|e| e.to_string())
}

/// The texts in a file of these bytes.
fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    texts(&folder.path().join(name))
}

/// Rows of 9 ids, one id per byte of text.
fn stream(config: &CorpusConfig, endless: bool) -> RowStream {
    let encode = |text: &str| text.bytes().map(u32::from).collect();
    RowStream::new(config.clone(), Arc::new(encode), 9, 0, 5, endless).unwrap()
}

/// What was counted when all was read once.
fn counts(config: &CorpusConfig) -> Counts {
    let mut stream = stream(config, false);
    stream.take(100_000).unwrap();
    stream.counts()[0]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

const LINE: &[u8] = b"{\"text\": \"one\"}\n";

#[test]
fn a_byte_order_mark_is_no_text() {
    let bytes = b"\xef\xbb\xbf{\"text\": \"one\"}\r\n\r\n\xef\xbb\xbf{\"text\": \"two\"}";
    assert_eq!(read("a.jsonl", bytes).unwrap(), ["one", "two"]);
    assert_eq!(read("a.jsonl.gz", gzip(bytes)).unwrap(), ["one", "two"]);
    assert_eq!(read("a.jsonl.zst", zst(bytes)).unwrap(), ["one", "two"]);
    assert_eq!(read("a.txt", b"\xef\xbb\xbfA book.").unwrap(), ["A book."]);
    assert!(read("a.txt", b"\xef\xbb\xbf").unwrap_err().contains("hold no document"));
    for utf16 in [&b"\xff\xfeA\0\n\0"[..], b"\xfe\xff\0A\0\n"] {
        let message = read("a.txt", utf16).unwrap_err();
        assert!(message.contains("a.txt: UTF-16; bring it into UTF-8"), "{message}");
    }
}

#[test]
fn line_breaks_of_two_characters_are_line_breaks() {
    assert_eq!(read("a.txt", "One\r\ntwo\r\n\r\nthree\rfour\r\n").unwrap(), ["One\ntwo\n\nthree\rfour"]);
    let paragraph = format!("{}\r\n\r\n", "words ".repeat(3000));
    assert_eq!(read("a.txt", paragraph.repeat(3)).unwrap().len(), 3, "blank lines are seen");
}

#[test]
fn gzip_is_read_as_gzip_reads_it() {
    let (member, other) = (gzip(LINE), gzip(b"{\"text\": \"two\"}\n"));
    let zeros = [0; 70_000];
    let good = [&member[..]].concat();
    assert_eq!(read("a.jsonl.gz", &good).unwrap(), ["one"]);
    assert_eq!(read("a.jsonl.gz", [&member[..], &other].concat()).unwrap(), ["one", "two"]);
    assert_eq!(read("a.jsonl.gz", [&member[..], &zeros].concat()).unwrap(), ["one"]);
    assert_eq!(read("a.jsonl.gz", [&member[..], &other, &[0]].concat()).unwrap(), ["one", "two"]);
    // The name need not say so.
    assert_eq!(read("a.jsonl", &good).unwrap(), ["one"]);
    for behind in [&b"garbage"[..], &[&zeros[..], b"x"].concat(), &[&[0], &other[..]].concat()] {
        let message = read("a.jsonl.gz", [&member[..], behind].concat()).unwrap_err();
        assert!(message.contains("a.jsonl.gz: line 2") && message.contains("behind the last gzip member"), "{message}");
    }
    assert!(read("a.jsonl.gz", &good[..good.len() - 3]).unwrap_err().contains("cannot be unpacked"));
}

#[test]
fn zstd_is_read_frame_by_frame_with_any_window() {
    let skippable = [&b"\x5e\x2a\x4d\x18\x04\0\0\0"[..], &[1, 2, 3, 4]].concat();
    let frame = zst(LINE);
    let pzstd = [&skippable[..], &frame, &skippable, &frame].concat();
    assert_eq!(read("a.jsonl.zst", &pzstd).unwrap(), ["one", "one"]);
    assert_eq!(read("a.jsonl", &pzstd).unwrap(), ["one", "one"]);
    for log in [28, 31] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(LINE).unwrap();
        assert_eq!(read("a.jsonl.zst", encoder.finish().unwrap()).unwrap(), ["one"], "{log}");
    }
    assert!(read("a.jsonl.zst", [&frame[..], b"garbage"].concat()).unwrap_err().contains("line 2 cannot be unpacked"));
}

#[test]
fn other_packers_are_named() {
    for (bytes, name) in [
        (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
        (b"BZh91AY&SY\0", "bzip2"),
        (b"PK\x03\x04\x14", "zip"),
        (b"\x04\x22\x4d\x18d", "lz4"),
    ] {
        let message = read("a.jsonl", bytes).unwrap_err();
        assert!(message.contains(&format!("a.jsonl: packed by {name}, which is not read")), "{message}");
    }
    assert_eq!(read("a.txt", "BZh9 is text").unwrap(), ["BZh9 is text"]);
}

#[test]
fn fields_that_nobody_asked_for_do_not_matter() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for value in ["NaN", "-Infinity", "1e999", "\"\\ud83d\"", deep.as_str()] {
        assert_eq!(read("a.jsonl", format!("{{\"score\": {value}, \"text\": \"one\"}}")).unwrap(), ["one"], "{value}");
    }
    assert_eq!(read("a.jsonl", r#"{"text": "a \ud83d b"}"#).unwrap(), ["a \u{fffd} b"]);
}

#[test]
fn texts_that_are_null_are_passed_over_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\": null}\n{\"text\": \"one two three\"}\n{\"text\": NaN}\n{\"text\": null}\n").unwrap();
    assert_eq!(texts(&path).unwrap(), ["one two three"]);
    let Counts { documents, nulls, damaged, damaged_documents, .. } = counts(&corpus(&path));
    assert_eq!((documents, nulls, damaged, damaged_documents), (1, 3, 0, 0));
    fs::write(&path, "{\"text\": null}\n").unwrap();
    assert!(texts(&path).unwrap_err().contains("these files hold no document"));
}

#[test]
fn one_bad_line_costs_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(65 << 20));
    let bad: [&[u8]; 6] =
        [b"{\"te\n", b"{\"text\": \"\xff\"}\n", b"{\"body\": \"x\"}\n", b"{\"text\": 7}\n", b"[1]\n", long.as_bytes()];
    let mut file = fs::File::create(&path).unwrap();
    for line in bad {
        file.write_all(line).unwrap();
        file.write_all(b"{\"text\": \"a good line\"}\n").unwrap();
    }
    drop(file);
    let mut config = CorpusConfig { on_error: OnError::Skip, ..corpus(&path) };
    for deduplicate in [false, true] {
        config.deduplicate = deduplicate;
        let Counts { documents, duplicates, damaged, damaged_documents, .. } = counts(&config);
        assert_eq!((documents + duplicates, damaged, damaged_documents), (6, 0, 6));
    }
    config.on_error = OnError::Stop;
    config.deduplicate = false;
    let message = stream(&config, false).take(100).unwrap_err().to_string();
    assert!(message.contains("a.jsonl, line 1: not JSON"), "{message}");

    // Of a text, a line that is not UTF-8; and what cannot be unpacked further is the rest of the file.
    config.on_error = OnError::Skip;
    config.sources = vec![source(&folder.path().join("b.txt")), source(&folder.path().join("c.jsonl.gz"))];
    fs::write(folder.path().join("b.txt"), b"one\n\xff\xfe\nthree\n").unwrap();
    let whole = gzip(&LINE.repeat(50));
    fs::write(folder.path().join("c.jsonl.gz"), &whole[..whole.len() - 4]).unwrap();
    let mut stream = stream(&config, false);
    stream.take(1000).unwrap();
    let [text, packed] = stream.counts()[..] else { panic!("two sources") };
    assert_eq!((text.documents, text.damaged, text.damaged_documents, text.tokens), (1, 0, 1, 9));
    assert_eq!((packed.damaged, packed.damaged_documents), (1, 0));
}

#[test]
fn a_position_behind_lines_without_documents_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let line = |i: usize| match i % 4 {
        0 => "{\"text\": null}\n".to_owned(),
        1 => "no JSON\n".to_owned(),
        _ => format!("{{\"text\": \"document {i}\"}}\n"),
    };
    fs::write(&path, (0..100).map(line).collect::<String>()).unwrap();
    let config = CorpusConfig { on_error: OnError::Skip, ..corpus(&path) };
    let mut undisturbed = stream(&config, true);
    let expected = undisturbed.take(150).unwrap();
    let (mut rows, mut state) = (Vec::new(), stream(&config, true).state().clone());
    for _ in 0..50 {
        let mut resumed = stream(&config, true);
        resumed.restore(state).unwrap();
        rows.extend(resumed.take(3).unwrap());
        state = serde_json::from_str(&serde_json::to_string(resumed.state()).unwrap()).unwrap();
    }
    assert_eq!((rows, &state), (expected, undisturbed.state()));
    assert!(undisturbed.counts()[0].nulls > 20 && undisturbed.counts()[0].damaged_documents > 20);

    // A state of before these were counted.
    let mut old = serde_json::to_value(undisturbed.state()).unwrap();
    old["lanes"][0].as_object_mut().unwrap().remove("passed").unwrap();
    let mut resumed = stream(&config, true);
    resumed.restore(serde_json::from_value(old).unwrap()).unwrap();
    assert_eq!(resumed.take(50).unwrap(), undisturbed.take(50).unwrap());
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read_and_remembered() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    let books = folder.path().join(OsStr::from_bytes(b"livres \xe9"));
    fs::create_dir(&books).unwrap();
    for (name, text) in [(&b"a.txt"[..], "first"), (b"caf\xe9.txt", "second"), (b"\xff.txt", "third")] {
        fs::write(books.join(OsStr::from_bytes(name)), text).unwrap();
    }
    for pattern in ["**/*.txt", "livres*/*.txt", "livres ?/*.txt", ""] {
        assert_eq!(texts(&folder.path().join(pattern)).unwrap(), ["first", "second", "third"], "{pattern:?}");
    }
    let config = corpus(folder.path());
    let mut before = stream(&config, true);
    before.take(3).unwrap();
    let state = serde_json::from_str(&serde_json::to_string(before.state()).unwrap()).unwrap();
    let mut after = stream(&config, true);
    after.restore(state).unwrap();
    assert_eq!(after.take(5).unwrap(), before.take(5).unwrap());
}

#[test]
fn a_folder_is_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["b/deep", ".git", "empty", "[odd]"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for (name, bytes) in [
        ("b/deep/c.jsonl", LINE),
        ("b/a.MD", b"two"),
        ("a.txt", b"three"),
        ("image.png", b"\x89PNG"),
        (".git/x.txt", b"hidden"),
        (".hidden.txt", b"hidden"),
        ("[odd]/x.txt", b"four"),
        ("empty/x.pdf", b"%PDF"),
        ("b[1].txt", b"five"),
    ] {
        fs::write(at(name), bytes).unwrap();
    }
    assert_eq!(texts(folder.path()).unwrap(), ["four", "three", "two", "one", "five"]);
    assert_eq!(texts(&at("[odd]")).unwrap(), ["four"]);
    assert_eq!(texts(&at("b[1].txt")).unwrap(), ["five"]);
    assert_eq!(texts(&at("b/")).unwrap(), ["two", "one"]);
    let message = texts(&at("empty")).unwrap_err();
    assert!(message.contains("empty holds no file of a corpus") && message.contains("x.pdf"), "{message}");
    let mut forced = corpus(&at("empty"));
    forced.sources[0].format = Some(Format::Text);
    assert_eq!(documents(&forced).unwrap().map(Result::unwrap).collect::<Vec<_>>(), ["%PDF"]);
}

#[test]
fn an_empty_corpus_is_told_as_one() {
    assert!(read("a.txt", "").unwrap_err().contains("a.txt: these files hold no document"));
    assert!(read("a.jsonl", "\r\n\n").unwrap_err().contains("these files hold no document"));
    let nested = read("a.jsonl", "{\"doc\": {\"text\": \"x\", \"id\": 1}}").unwrap_err();
    assert!(nested.contains("no field \"text\"; there are doc.text, doc.id; set text_key"), "{nested}");
}

#[test]
fn advice_is_given_to_those_whom_it_can_help() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, LINE.repeat(50)).unwrap();
    let (config, state) = (corpus(&path), stream(&corpus(&path), true).state().clone());
    let accepting = CorpusConfig { on_change: OnChange::Accept, ..config.clone() };
    let (mut stopping, mut running) = (stream(&config, true), stream(&accepting, true));
    fs::write(&path, LINE.repeat(49)).unwrap();
    let message = stopping.take(5).unwrap_err().to_string();
    assert!(message.contains("data.on_change = \"accept\""), "{message}");
    let message = running.take(5).unwrap_err().to_string();
    assert!(message.contains("the same command goes on") && !message.contains("accept"), "{message}");
    // What is accepted goes on, and what cannot be is not recommended.
    stream(&accepting, true).restore(state.clone()).unwrap();
    let both = CorpusConfig { sources: vec![source(&path), source(&path)], ..accepting };
    let message = stream(&both, true).restore(state.clone()).unwrap_err().to_string();
    assert!(message.contains("it had 1 file and has 2 now") && !message.contains("accept"), "{message}");
    let separate = CorpusConfig { packing: openelm_train::data::Packing::Separate, ..accepting_one(&path) };
    let message = stream(&separate, true).restore(state).unwrap_err().to_string();
    assert!(message.contains("data.packing was joined and is separate now"), "{message}");
}

fn accepting_one(path: &Path) -> CorpusConfig {
    CorpusConfig { on_change: OnChange::Accept, ..corpus(path) }
}

#[test]
fn small_inputs_that_went_wrong_elsewhere_are_read() {
    let Some(folder) = shared("cases/corpora") else { return };
    let count = |name: &str, key: &str| {
        let mut config = corpus(&folder.join(name));
        config.sources[0].text_key = key.to_owned();
        documents(&config).unwrap().map(Result::unwrap).count()
    };
    assert!(count("pzstd.jsonl.zst", "text") > 10);
    assert!(count("zeros-behind.jsonl.gz", "text") > 10);
    #[cfg(feature = "parquet")]
    for (name, key) in [("struct", "doc.text"), ("codec_lz4", "text"), ("codec_brotli", "text")] {
        assert!(count(&format!("{name}.parquet"), key) > 10, "{name}");
    }
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Values, and levels of definition and of repetition.
    type Column<'c> = (&'c [&'c [u8]], &'c [i16], &'c [i16]);

    /// Writes a file of one row group, each column with its values and levels of definition and repetition.
    fn write(path: &Path, schema: &str, codec: Compression, columns: &[Column<'_>]) {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
        let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for (values, definition, repetition) in columns {
            let values: Vec<ByteArray> = values.iter().map(|&value| value.to_vec().into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let (definition, repetition) = (some(definition), some(repetition));
            column.typed::<ByteArrayType>().write_batch(&values, definition, repetition).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn some(levels: &[i16]) -> Option<&[i16]> {
        (!levels.is_empty()).then_some(levels)
    }

    const FLAT: &str = "message m { optional binary text (UTF8); }";

    #[test]
    fn every_usual_codec_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
        ] {
            let text = "again and ".repeat(500);
            write(&path, FLAT, codec, &[(&[text.as_bytes()], &[1], &[])]);
            assert_eq!(texts(&path).unwrap(), [text], "{codec:?}");
        }
    }

    #[test]
    fn rows_without_text_and_damaged_ones_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let values: [&[u8]; 3] = [b"the first one", b"\xff", b"the last one"];
        write(&path, FLAT, Compression::SNAPPY, &[(&values, &[0, 1, 1, 0, 1, 0], &[])]);
        let message = texts(&path).unwrap_err();
        assert!(message.contains("a.parquet, row 3: not UTF-8"), "{message}");
        let Counts { documents, nulls, damaged, damaged_documents, .. } =
            counts(&CorpusConfig { on_error: OnError::Skip, ..corpus(&path) });
        assert_eq!((documents, nulls, damaged, damaged_documents), (2, 3, 0, 1));
    }

    #[test]
    fn a_text_in_a_struct_has_a_path_and_a_list_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let schema = "message m { optional group doc { optional binary text (UTF8); required binary id (UTF8); } \
                      optional group tags (LIST) { repeated group list { optional binary element (UTF8); } } }";
        let columns: [Column<'_>; 3] = [
            (&[b"one", b"two"], &[2, 0, 1, 2], &[]),
            (&[b"a", b"b", b"c"], &[1, 0, 1, 1], &[]),
            (&[b"t", b"u"], &[3, 0, 0, 3], &[0, 0, 0, 0]),
        ];
        write(&path, schema, Compression::UNCOMPRESSED, &columns);
        let of = |key: &str| {
            let mut config = corpus(&path);
            config.sources[0].text_key = key.to_owned();
            let texts = documents(&config).unwrap().collect::<Result<Vec<_>, _>>();
            texts.map_err(|e| e.to_string())
        };
        assert_eq!(of("doc.text").unwrap(), ["one", "two"]);
        assert_eq!(of("doc.id").unwrap(), ["a", "b", "c"]);
        assert!(of("text").unwrap_err().contains("no column \"text\"; there are doc.text, doc.id; set text_key"));
        assert!(of("doc").unwrap_err().contains("\"doc\" is a struct; there are doc.text, doc.id; set text_key"));
        assert!(of("tags").unwrap_err().contains("\"tags\" holds lists"));
        assert!(of("tags.list.element").unwrap_err().contains("not one of texts"));
    }
}
