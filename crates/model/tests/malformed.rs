//! Tokenizers that are broken in every way we could think of, and those that fuzzing found. Each is refused in one sentence, or
//! can be used like any other; none panics, hangs, or allocates more than a sound one of its size would.
//!
//! The files are made here from sound ones.

#![allow(clippy::unwrap_used)]

use openelm_model::sentencepiece::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec, Type};
use openelm_model::{Tokenizer, TokenizerError};
use openelm_testing::golden;
use prost::Message;
use serde_json::{Value, json};

/// Far more than any file here needs, far less than any length that one of them lies about.
const MAX_BYTES: u64 = 32 << 20;

/// What `read` gives, used if it is a tokenizer, after asserting that neither took much memory.
#[track_caller]
fn tried(what: &str, read: impl FnOnce() -> Result<Tokenizer, TokenizerError>) -> Result<(), String> {
    let mut result = Ok(());
    let used = allocation_counter::measure(|| {
        result = read().map_err(|e| e.to_string()).map(|tokenizer| {
            let ids = tokenizer.encode_with("Once upon a  time, 12 élan\n\u{1f600}", true, true);
            tokenizer.decode(&ids);
            tokenizer.decode(&[0, 1, 2, 3, 255, u32::MAX]);
        });
    });
    assert!(used.bytes_max < MAX_BYTES, "{what}: {} bytes were allocated", used.bytes_max);
    println!("{what}: {result:?}");
    result
}

#[track_caller]
fn assert_refused(what: &str, part: &str, read: impl FnOnce() -> Result<Tokenizer, TokenizerError>) {
    let message = tried(what, read).expect_err(what);
    assert!(message.contains(part), "{what}: {part:?} is not in: {message}");
    assert!(!message.contains('\n'), "{what}: more than one line: {message}");
}

fn sound() -> Vec<u8> {
    std::fs::read(golden("gguf/tokenizer.model")).unwrap()
}

/// The sound model after a change.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(&*sound()).unwrap();
    change(&mut model);
    model.encode_to_vec()
}

fn refuses_model(what: &str, part: &str, bytes: &[u8]) {
    assert_refused(what, part, || Tokenizer::from_sentencepiece(bytes));
}

#[test]
fn models_that_are_cut_off_or_no_protobuf() {
    let sound = sound();
    refuses_model("empty", "no pieces", b"");
    for length in (1..sound.len()).step_by(23) {
        // Where a field ends the rest is a smaller model.
        let _ = tried("cut off", || Tokenizer::from_sentencepiece(&sound[..length]));
    }
    let no_model = "not a SentencePiece model";
    refuses_model("a length beyond the file", no_model, b"\x0a\xff\xff\xff\xff\x07");
    refuses_model("a length beyond all", no_model, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    refuses_model("a number without end", no_model, &[0xff; 40]);
    refuses_model("another wire type", no_model, b"\x08\x01\x0d\x00");
    refuses_model("a group that never ends", no_model, &[0x0b; 100_000]);
    refuses_model("a text that is not UTF-8", no_model, b"\x0a\x04\x0a\x02\xff\xfe");
}

#[test]
fn models_that_make_no_tokenizer() {
    let first = |kind: Type, text: &'static str| {
        changed(|model| {
            let piece = &mut model.pieces[5];
            (piece.piece, piece.r#type) = (Some(text.to_owned()), Some(kind as i32));
        })
    };
    refuses_model("a byte that is none", "ought to be a byte", &first(Type::Byte, "<0xZZ>"));
    refuses_model("a byte cut through a character", "ought to be a byte", &first(Type::Byte, "<0xé>"));
    refuses_model("a byte with a sign", "ought to be a byte", &first(Type::Byte, "<0x+A>"));
    refuses_model("no text", "", &changed(|model| model.pieces[5].piece = None));
    let long: &'static str = "a".repeat(100_000).leak();
    refuses_model("a piece without measure", "100000 bytes", &first(Type::Normal, long));
    let only_control = changed(|model| model.pieces.truncate(3));
    refuses_model("control tokens alone", "can be a part of a text", &only_control);
    let rules = |charsmap: Vec<u8>| {
        changed(|model| {
            let normaliser = model.normalizer_spec.get_or_insert_with(NormalizerSpec::default);
            normaliser.name = Some("user_defined".to_owned());
            normaliser.precompiled_charsmap = Some(charsmap);
        })
    };
    refuses_model("rules that are none", "rules for normalising", &rules(vec![1; 64]));
    refuses_model("rules beyond their end", "rules for normalising", &rules(vec![0; 8]));
    let texts = |text: &str| rules([&4u32.to_le_bytes()[..], &[0; 4], text.as_bytes(), b"\0"].concat());
    refuses_model("a rule that writes a book", "more than 256 bytes", &texts(&"a".repeat(300)));
    refuses_model(
        "rules for decoding",
        "rewriting what it decodes",
        &changed(|model| {
            let charsmap = Some(vec![1; 64]);
            model.denormalizer_spec =
                Some(NormalizerSpec { precompiled_charsmap: charsmap, ..NormalizerSpec::default() });
        }),
    );
    refuses_model(
        "words for pieces",
        "of type Word",
        &changed(|model| {
            model.trainer_spec.get_or_insert_default().model_type = Some(ModelType::Word as i32);
        }),
    );
}

#[test]
fn models_that_contradict_themselves() {
    let last = |change: fn(&mut SentencePiece)| changed(|model| change(model.pieces.last_mut().unwrap()));
    refuses_model("a score that is no number", "the score NaN", &last(|piece| piece.score = Some(f32::NAN)));
    refuses_model("a score without end", "the score inf", &last(|piece| piece.score = Some(f32::INFINITY)));
    refuses_model("one text for two pieces", "there twice", &last(|piece| piece.piece = Some("<s>".to_owned())));
    refuses_model("an empty piece", "no text", &last(|piece| piece.piece = Some(String::new())));
    refuses_model(
        "two unknown pieces",
        "several pieces for the unknown",
        &last(|piece| piece.r#type = Some(Type::Unknown as i32)),
    );
    refuses_model(
        "a control piece that is in texts",
        "would be found in texts",
        &last(|piece| {
            (piece.piece, piece.r#type) = (Some("~".to_owned()), Some(Type::Control as i32));
        }),
    );
    refuses_model("no unknown piece", "no piece for the unknown", &changed(|model| drop(model.pieces.remove(0))));
    refuses_model("bytes that are not all there", "no piece <0x00>", &changed(|model| drop(model.pieces.remove(3))));
    refuses_model("bytes without use", "does not fall back to bytes", &changed(|model| model.trainer_spec = None));
    let unused = changed(|model| {
        for (piece, text) in model.pieces.iter_mut().rev().zip(["xyz", "xy", "yz"]) {
            piece.piece = Some(text.to_owned());
        }
        model.pieces.last_mut().unwrap().r#type = Some(Type::Unused as i32);
    });
    refuses_model("an unused piece that comes of two pairs", "more than one way", &unused);
}

/// Texts and pieces of the length that hurts.
#[test]
fn no_text_takes_for_ever() {
    let long = changed(|model| {
        let lengths = [2usize, 3, 5, 16, 300, 512];
        for (piece, length) in model.pieces.iter_mut().rev().zip(lengths) {
            piece.piece = Some("a".repeat(length));
        }
    });
    let unigram = |bytes: &[u8]| {
        let mut model = ModelProto::decode(bytes).unwrap();
        model.trainer_spec.get_or_insert_default().model_type = Some(ModelType::Unigram as i32);
        model.encode_to_vec()
    };
    const MEBI: usize = 1 << 20;
    for (model, bytes) in
        [(sound(), 3 * MEBI), (unigram(&sound()), 3 * MEBI), (long.clone(), 3 * MEBI), (unigram(&long), MEBI / 2)]
    {
        let tokenizer = Tokenizer::from_sentencepiece(&model).unwrap();
        for unit in ["a", "é", "▁", " ", "on"] {
            let text = unit.repeat(bytes / unit.len());
            let begin = std::time::Instant::now();
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text)).len(), text.replace('▁', " ").len());
            assert!(begin.elapsed().as_secs() < 100, "{} seconds", begin.elapsed().as_secs_f32());
        }
    }
}

#[test]
fn odd_models_can_be_used() {
    let trainer = |change: fn(&mut TrainerSpec)| changed(|model| change(model.trainer_spec.get_or_insert_default()));
    for (what, bytes) in [
        (
            "ids beyond the vocabulary",
            trainer(|trainer| (trainer.bos_id, trainer.pad_id) = (Some(i32::MAX), Some(i32::MIN))),
        ),
        ("no surface for the unknown", trainer(|trainer| trainer.unk_surface = Some(String::new()))),
        ("unigrams without sense", trainer(|trainer| trainer.model_type = Some(ModelType::Unigram as i32))),
        (
            "a normaliser that is not known",
            changed(|model| {
                model.normalizer_spec.get_or_insert_with(NormalizerSpec::default).name = Some("odd".to_owned());
            }),
        ),
    ] {
        tried(what, || Tokenizer::from_sentencepiece(&bytes)).unwrap();
    }
}

fn tokenizer_json() -> Value {
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": null,
        "model": { "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": { "<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁": 4, "a": 5, "n": 6, "an": 7 },
            "merges": ["a n"] },
    })
}

fn refuses_json(what: &str, part: &str, change: impl FnOnce(&mut Value)) {
    let mut json = tokenizer_json();
    change(&mut json);
    assert_refused(what, part, || Tokenizer::from_tokenizer_json(json.to_string().as_bytes()));
}

#[test]
fn tokenizer_json_that_is_no_json() {
    let whole = tokenizer_json().to_string();
    let refuses = |what: &str, part: &str, text: &[u8]| {
        assert_refused(what, part, || Tokenizer::from_tokenizer_json(text));
    };
    for length in (0..whole.len()).step_by(17) {
        refuses("cut off", "not a tokenizer.json", &whole.as_bytes()[..length]);
    }
    refuses("not UTF-8", "not a tokenizer.json", b"{\"model\": \"\xff\"}");
    refuses("nested deeply", "recursion", "[".repeat(100_000).as_bytes());
    refuses("nested deeply in objects", "recursion", "{\"a\":".repeat(100_000).as_bytes());
    let normalisers = format!("{}{}", r#"{"type":"Sequence","normalizers":["#.repeat(50), "]}".repeat(50));
    let nested = whole.replace(&tokenizer_json()["normalizer"].to_string(), &normalisers);
    let _ = tried("steps in steps", || Tokenizer::from_tokenizer_json(nested.as_bytes()));
}

#[test]
fn tokenizer_json_of_another_kind() {
    refuses_json("no model", "vocabulary", |json| json["model"] = Value::Null);
    refuses_json("another model", "WordPiece", |json| json["model"]["type"] = json!("WordPiece"));
    refuses_json("a suffix", "end_of_word_suffix", |json| json["model"]["end_of_word_suffix"] = json!("</w>"));
    refuses_json("dropout", "dropout", |json| json["model"]["dropout"] = json!(0.5));
    refuses_json("bytes without pieces", "no piece 'Ā' for the byte 0x00", |json| {
        json["pre_tokenizer"] =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    });
    refuses_json("a regular expression that takes for ever", "Split", |json| {
        json["pre_tokenizer"] = json!({ "type": "Split", "pattern": { "Regex": "(?:(?=a)a*)*\\1b" }, "behavior": "Isolated", "invert": false });
    });
    let doubling = json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": "▁▁" });
    refuses_json("a space first behind another step", "behind another step", |json| {
        let steps = [
            json!({ "type": "Digits" }),
            json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first" }),
        ];
        json["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": steps });
    });
    refuses_json("a text that doubles sixty times", "Replace", |json| {
        json["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![doubling; 60] });
    });
    refuses_json("rules of its own", "Precompiled", |json| {
        json["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAA=" });
    });
    refuses_json("another space", "Metaspace", |json| {
        json["pre_tokenizer"] = json!({ "type": "Metaspace", "replacement": "_", "prepend_scheme": "always" });
    });
}

#[test]
fn tokenizer_json_that_lies() {
    refuses_json("an id below zero", "-1", |json| json["model"]["vocab"]["a"] = json!(-1));
    refuses_json("an id beyond all", "4294967296", |json| json["model"]["vocab"]["a"] = json!(1u64 << 32));
    refuses_json("an id far away", "ids up to", |json| json["model"]["vocab"]["a"] = json!(9_000_000));
    refuses_json("an id of an added token far away", "ids up to", |json| {
        json["added_tokens"][0]["id"] = json!(9_000_000)
    });
    refuses_json("an added token without text", "added token", |json| json["added_tokens"][1]["content"] = json!(""));
    refuses_json("an added token without id", "added token", |json| json["added_tokens"][1]["id"] = Value::Null);
    refuses_json("an added token of another id", "has the id 7, but 1", |json| {
        json["added_tokens"][1]["id"] = json!(7)
    });
    refuses_json("characters that would be lost", "would be lost", |json| json["model"]["unk_token"] = Value::Null);
    refuses_json("a merge of the unknown", "no text of its own", |json| {
        json["model"]["vocab"]["<unk>a"] = json!(8);
        json["model"]["merges"] = json!([["<unk>", "a"]]);
    });
    refuses_json("a merge of one", "", |json| json["model"]["merges"] = json!(["an"]));
    refuses_json("merges of numbers", "", |json| json["model"]["merges"] = json!([[1, 2]]));
    refuses_json("no merges", "", |json| json["model"]["merges"] = Value::Null);
    refuses_json("an unknown token that is none", "", |json| json["model"]["unk_token"] = json!("<odd>"));
    let long = "a".repeat(100_000);
    refuses_json("a piece without measure", "100000 bytes", |json| json["model"]["vocab"][long] = json!(8));
    refuses_json("control tokens alone", "can be a part of a text", |json| {
        json["model"]["vocab"] = json!({ "<unk>": 0, "<s>": 1, "</s>": 2 });
        json["model"]["merges"] = json!([]);
    });
}

#[test]
fn templates_padding_and_truncation_stay_outside() {
    let mut padded = tokenizer_json();
    let pad = json!({ "strategy": { "Fixed": 1u64 << 31 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                      "pad_type_id": 0, "pad_token": "<unk>" });
    padded["padding"] = pad;
    padded["truncation"] = json!({ "direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0 });
    let read = |json: &Value| Tokenizer::from_tokenizer_json(json.to_string().as_bytes());
    tried("padding to two thousand million ids", || read(&padded)).unwrap();
    assert_eq!(read(&padded).unwrap().encode("an an"), read(&tokenizer_json()).unwrap().encode("an an"));
    assert_eq!(read(&tokenizer_json()).unwrap().encode("an an"), [4, 7, 4, 7]);
}
