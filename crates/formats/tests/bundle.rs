//! Bundles: the same model as before, mapped; and what is refused.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use openelm_formats::bundle::{BundleOptions, BundleWeights, Purpose, verify};
use openelm_formats::gguf::Quantisation;
use openelm_formats::{Format, FormatError, StoredModel, Target, convert, inspect, open};
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{DType, Engine, Feed, Logits, Rows};

fn storyteller() -> StoredModel {
    open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller"))).unwrap()
}

fn written(model: &StoredModel, output: &Path, target: Target) -> StoredModel {
    convert(model, output, target, &Threads::new(2), &|_| ControlFlow::Continue(())).unwrap();
    open(output).unwrap()
}

fn bundled(model: &StoredModel, output: &Path, weights: BundleWeights) -> StoredModel {
    written(model, output, Target::Bundle(BundleOptions { purpose: Purpose::Ios, weights }))
}

fn quantised(format: BlockFormat) -> BundleWeights {
    BundleWeights::Quantised(Quantisation::Blocks(format))
}

/// A bundle in four bits in a folder of its own.
fn bundle() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    bundled(&storyteller(), &path, quantised(BlockFormat::Q4_0));
    (folder, path)
}

fn logits(model: StoredModel) -> Vec<f32> {
    let threads = Threads::new(2);
    let engine = Engine::new(model.into_packed_model(&threads).unwrap(), threads);
    let (mut sequence, mut logits) = (engine.sequence(8), Logits::default());
    let tokens = [1, 17, 400, 23, 5];
    engine.step(&mut [Feed { sequence: &mut sequence, tokens: &tokens, logits: Rows::All }], &mut logits).unwrap();
    logits.into_values()
}

#[test]
fn a_bundle_is_the_model_that_gguf_holds_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = storyteller();
    for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q5_1] {
        let gguf = written(&model, &at(&format!("{format}.gguf")), Target::Gguf(Quantisation::Blocks(format)));
        let bundle = bundled(&model, &at(&format!("{format}")), quantised(format));
        assert_eq!(bundle.format, Format::Bundle);
        assert_eq!(bundle.encodings(), gguf.encodings());
        for spec in gguf.specs() {
            let (a, b) = (gguf.tensor(&spec.name).unwrap(), bundle.tensor(&spec.name).unwrap());
            assert_eq!((a.encoding(), a.shape()), (b.encoding(), b.shape()), "{}", spec.name);
            assert!(a.bytes() == b.bytes(), "{format}: {} has other bytes", spec.name);
        }
        // From a file of blocks they are kept, and back in a file they are what they were.
        let kept = bundled(&gguf, &at(&format!("{format}-kept")), BundleWeights::Kept);
        let back = written(&kept, &at(&format!("{format}-back.gguf")), Target::Gguf(Quantisation::Blocks(format)));
        let expected = logits(gguf);
        for other in [bundle, kept, back] {
            assert_eq!(logits(other), expected, "{format}");
        }
    }
    let floats = bundled(&model, &at("floats"), BundleWeights::Quantised(Quantisation::Float(DType::F32)));
    assert_eq!(logits(floats), logits(model));
}

#[test]
fn what_comes_along_is_what_the_model_has() {
    let (folder, path) = bundle();
    let (model, bundle) = (storyteller(), open(&path).unwrap());
    assert_eq!(bundle.config, model.config);
    let text = "Once upon a time, in the dark: 3 + 4";
    let ids = |model: &StoredModel| model.tokenizer.as_ref().unwrap().open().unwrap().encode_prompt(text);
    assert_eq!(ids(&bundle), ids(&model));
    verify(&path).unwrap();
    assert_eq!(inspect(&bundle, &Threads::new(2)).unwrap().parameters, model.config.parameters());
    assert_eq!(open(&path.join("bundle.json")).unwrap().format, Format::Bundle);
    let again = convert(
        &model,
        &path,
        Target::Bundle(BundleOptions { purpose: Purpose::Web, weights: quantised(BlockFormat::Q4_0) }),
        &Threads::new(1),
        &|_| ControlFlow::Continue(()),
    );
    assert!(matches!(again, Err(FormatError::Exists { .. })));
    drop(folder);
}

#[test]
fn bits_are_as_many_as_fit_and_never_more_than_there_were() {
    let folder = tempfile::tempdir().unwrap();
    let model = storyteller();
    assert_eq!(BundleWeights::that_fit(&model, 1 << 30).unwrap(), quantised(BlockFormat::Q8_0));
    let least = quantised(BlockFormat::Q4_K);
    let room = |weights: BundleWeights| {
        let config = &model.config;
        let bytes = weights.bytes(&model) as usize;
        openelm_model::Footprint::new(config, bytes, config.context_length, openelm_model::CacheType::F32).total()
    };
    assert_eq!(BundleWeights::that_fit(&model, room(least)).unwrap(), least);
    let refused = BundleWeights::that_fit(&model, room(least) - 1).unwrap_err().to_string();
    assert!(refused.contains("storyteller") && refused.contains("--memory"), "{refused}");
    let gguf = written(&model, &folder.path().join("4.gguf"), Target::Gguf(Quantisation::Blocks(BlockFormat::Q4_0)));
    assert_eq!(BundleWeights::that_fit(&gguf, 1 << 30).unwrap(), BundleWeights::Kept);
}

/// The sentence with which a bundle is refused after `spoil`.
fn refusal(spoil: impl FnOnce(&Path)) -> String {
    let (_folder, path) = bundle();
    spoil(&path);
    match open(&path) {
        Ok(_) => panic!("a spoilt bundle was opened"),
        Err(e) => e.to_string(),
    }
}

fn edit(path: &Path, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let file = path.join(name);
    let mut bytes = std::fs::read(&file).unwrap();
    edit(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

fn replaced(path: &Path, from: &str, to: &str) {
    edit(path, "bundle.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        *bytes = text.replacen(from, to, 1).into_bytes();
    });
}

#[test]
fn a_bundle_that_was_cut_or_changed_is_refused_in_a_sentence_with_the_file() {
    let cut = refusal(|path| edit(path, "weights.bin", |bytes| bytes.truncate(bytes.len() / 2)));
    assert!(cut.contains("weights.bin") && cut.contains("copy the bundle again"), "{cut}");
    let empty = refusal(|path| edit(path, "weights.bin", Vec::clear));
    assert!(empty.contains("weights.bin has 0 bytes") || empty.contains("has 0 bytes"), "{empty}");
    let missing = refusal(|path| std::fs::remove_file(path.join("tokenizer.model")).unwrap());
    assert!(missing.contains("tokenizer.model"), "{missing}");
    let changed = refusal(|path| edit(path, "tokenizer.model", |bytes| bytes[100] ^= 1));
    assert!(changed.contains("tokenizer.model") && changed.contains("SHA-256"), "{changed}");
    let garbled = refusal(|path| edit(path, "bundle.json", |bytes| bytes.truncate(1000)));
    assert!(garbled.contains("bundle.json is not a sound manifest"), "{garbled}");
    let later = refusal(|path| replaced(path, "\"version\": 1", "\"version\": 2"));
    assert!(later.contains("version 2") && later.contains("make the bundle anew"), "{later}");
    let elsewhere = refusal(|path| replaced(path, "\"name\": \"tokenizer.model\"", "\"name\": \"../tokenizer.model\""));
    assert!(elsewhere.contains("is not the name of a file beside it"), "{elsewhere}");
    // Its tensors are others than those that the weights were written with.
    let moved = refusal(|path| replaced(path, "\"offset\": 16384", "\"offset\": 16448"));
    assert!(moved.contains("not the weights that bundle.json beside it describes"), "{moved}");
    let magic = refusal(|path| edit(path, "weights.bin", |bytes| bytes[0] = 0));
    assert!(magic.contains("does not begin as weights do"), "{magic}");
}

#[test]
fn weights_of_another_bundle_are_refused_and_a_changed_byte_is_found_by_verifying() {
    let (_first, path) = bundle();
    let (_second, other) = bundle();
    let folder = tempfile::tempdir().unwrap();
    let wider = folder.path().join("wider");
    bundled(&storyteller(), &wider, quantised(BlockFormat::Q8_0));
    // Of the same length as far as anybody can see.
    let weights = std::fs::read(wider.join("weights.bin")).unwrap();
    let length = std::fs::metadata(other.join("weights.bin")).unwrap().len() as usize;
    std::fs::write(other.join("weights.bin"), &weights[..length]).unwrap();
    let refused = open(&other).unwrap_err().to_string();
    assert!(refused.contains("copy the bundle again"), "{refused}");
    edit(&path, "weights.bin", |bytes| bytes[40_000] ^= 1);
    let opened = open(&path).unwrap();
    for refused in [verify(&path).unwrap_err(), inspect(&opened, &Threads::new(1)).unwrap_err()] {
        let sentence = refused.to_string();
        assert!(sentence.contains("weights.bin") && sentence.contains("SHA-256"), "{sentence}");
    }
}
