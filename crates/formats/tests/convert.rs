//! What is written: to the byte what the peers write where they can be compared, exact where only floats are involved, and
//! whole or not at all.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use openelm_formats::gguf::Quantisation;
use openelm_formats::{FormatError, StoredModel, StoredTokenizer, Target, compare, convert, open};
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::{AffineFormat, BlockFormat};
use openelm_model::{DType, Encoding, ModelConfig};
use openelm_testing::{golden, json};

const GGUF_F32: Target = Target::Gguf(Quantisation::Float(DType::F32));

#[track_caller]
fn written(model: &StoredModel, output: &Path, target: Target) -> StoredModel {
    convert(model, output, target, &Threads::new(2), &|_| ControlFlow::Continue(())).unwrap();
    open(output).unwrap()
}

fn refused(model: &StoredModel, output: &Path, target: Target) -> String {
    let refused = convert(model, output, target, &Threads::new(2), &|_| ControlFlow::Continue(()));
    refused.unwrap_err().to_string()
}

/// Fails unless both hold the same bytes in the same encodings.
#[track_caller]
fn assert_same_tensors(found: &StoredModel, expected: &StoredModel) {
    for spec in expected.specs() {
        let (found, expected) = (found.tensor(&spec.name).unwrap(), expected.tensor(&spec.name).unwrap());
        assert_eq!(found.encoding(), expected.encoding(), "{}", spec.name);
        assert!(found.bytes() == expected.bytes(), "{} ({}) differs", spec.name, found.encoding());
        assert!(found.scales_and_biases() == expected.scales_and_biases(), "scales of {} differ", spec.name);
    }
}

/// The small model with an embedded tokenizer that the GGUF files were made of.
fn with_tokenizer() -> StoredModel {
    open(&golden("gguf/a-F32.gguf")).unwrap()
}

fn carrying(mut model: StoredModel, tokenizer: Option<StoredTokenizer>) -> StoredModel {
    model.tokenizer = tokenizer;
    model
}

#[test]
fn mlx_folders_are_those_of_mlx_lm_to_the_byte() {
    let source = open(&golden("mlx/hf_source_f16")).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let mut names = vec!["float16".to_owned(), "bfloat16".to_owned()];
    let folders = std::fs::read_dir(golden("mlx")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.extend(folders.filter(|name| name.starts_with('q')));
    assert_eq!(names.len(), 10);
    for name in names {
        let (format, dtype) = match name.split('_').collect::<Vec<_>>()[..] {
            [bits, group, dtype] => (AffineFormat::new(bits[1..].parse().unwrap(), group[1..].parse().unwrap()), dtype),
            _ => (None, name.as_str()),
        };
        let dtype = if dtype == "float16" { DType::F16 } else { DType::BF16 };
        let folder = parent.path().join(&name);
        let found = written(&source, &folder, Target::Mlx(dtype, format));
        let theirs = golden("mlx").join(&name);
        assert_same_tensors(&found, &open(&theirs).unwrap());
        let mut config = json(&theirs.join("config.json"));
        // Of Python files that stayed with the source.
        config.as_object_mut().unwrap().remove("auto_map").unwrap();
        assert_eq!(json(&folder.join("config.json")), config, "{name}");
        let index = "model.safetensors.index.json";
        assert_eq!(json(&folder.join(index)), json(&theirs.join(index)), "{name}");
    }
}

#[test]
fn matrices_that_fill_no_whole_groups_stay_floats_as_in_mlx_lm() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Mlx(DType::F16, AffineFormat::new(4, 64));
    let found = written(&with_tokenizer(), &folder.path().join("mlx"), target);
    let mut kept = 0;
    for spec in found.specs() {
        let encoding = found.encoding(&spec.name).unwrap();
        let whole = matches!(spec.shape[..], [_, columns] if columns % 64 == 0);
        assert_eq!(encoding.dtype().is_none(), whole, "{} {:?}: {encoding}", spec.name, spec.shape);
        kept += usize::from(!whole && spec.shape.len() == 2);
    }
    assert!(kept > 0, "no matrix tests it");
}

#[test]
fn gguf_files_are_those_of_llama_cpp_to_the_byte() {
    let source = with_tokenizer();
    let folder = tempfile::tempdir().unwrap();
    for (name, quantisation) in [
        ("a-F32.gguf", Quantisation::Float(DType::F32)),
        ("a-F16.gguf", Quantisation::Float(DType::F16)),
        ("a-BF16.gguf", Quantisation::Float(DType::BF16)),
        ("a-Q8_0.gguf", Quantisation::Blocks(BlockFormat::Q8_0)),
        ("a-Q4_0.gguf", Quantisation::Blocks(BlockFormat::Q4_0)),
    ] {
        let found = written(&source, &folder.path().join(name), Target::Gguf(quantisation));
        let theirs = open(&golden("gguf").join(name)).unwrap();
        assert_same_tensors(&found, &theirs);
        assert_eq!(found.config, theirs.config, "{name}");
        let pieces = |model: &StoredModel| model.tokenizer.as_ref().unwrap().sentencepiece().unwrap().unwrap();
        assert!(pieces(&found) == pieces(&theirs), "{name}: another tokenizer");
    }
}

#[test]
fn k_quants_give_the_same_tensors_the_same_types_as_llama_cpp() {
    // No float source of these files is kept: what llama.cpp quantised stands for it.
    let source = open(&golden("gguf/b-Q6_K.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in
        [("b-Q4_K_M", BlockFormat::Q4_K), ("b-Q5_K_M", BlockFormat::Q5_K), ("b-Q6_K", BlockFormat::Q6_K)]
    {
        let found = written(&source, &folder.path().join(name), Target::Gguf(Quantisation::Blocks(format)));
        let theirs = open(&golden(&format!("gguf/{name}.gguf"))).unwrap();
        for spec in theirs.specs() {
            assert_eq!(found.encoding(&spec.name), theirs.encoding(&spec.name), "{name}: {}", spec.name);
        }
    }
}

#[test]
fn floats_go_round_all_formats_without_a_bit_changed() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        // Rounded once, then never again.
        let first = written(&with_tokenizer(), &at("hf"), Target::HuggingFace(dtype));
        let targets: [(&str, Target); 5] = [
            ("corenet", Target::CoreNet(dtype)),
            ("mlx", Target::Mlx(dtype, None)),
            ("model.gguf", Target::Gguf(Quantisation::Float(dtype))),
            ("hf-again", Target::HuggingFace(dtype)),
            ("corenet-again", Target::CoreNet(dtype)),
        ];
        let mut before = first;
        for (name, target) in targets {
            let next = written(&before, &at(name), target);
            for spec in next.specs() {
                let (next, before) = (next.tensor(&spec.name).unwrap(), before.tensor(&spec.name).unwrap());
                assert!(next.to_f32() == before.to_f32(), "{dtype} to {name}: {} differs", spec.name);
            }
            let sizes = |config: &ModelConfig| (openelm_model::tensor_specs(config), config.context_length);
            assert_eq!(sizes(&next.config), sizes(&before.config), "{name}");
            assert_eq!(next.main_encoding(), Encoding::Float(dtype));
            let text = "CoreNet is a deep neural network toolkit (v1)";
            let ids = next.tokenizer.as_ref().unwrap().open().unwrap().encode(text);
            assert_eq!(ids, before.tokenizer.as_ref().unwrap().open().unwrap().encode(text), "{name}");
            before = next;
        }
    }
}

#[test]
fn models_that_llama_cpp_does_not_know_go_everywhere_else() {
    let parent = tempfile::tempdir().unwrap();
    for variant in ["noglu_mqa", "untied_noqknorm"] {
        let source = open(&golden(&format!("tiny_variants/{variant}"))).unwrap();
        let targets = [
            ("corenet", Target::CoreNet(DType::F32)),
            ("mlx", Target::Mlx(DType::F32, None)),
            ("hf", Target::HuggingFace(DType::F32)),
        ];
        for (name, target) in targets {
            let found = written(&source, &parent.path().join(format!("{variant}-{name}")), target);
            assert_eq!(found.config, source.config);
            assert_same_tensors(&found, &source);
        }
        let source = carrying(source, with_tokenizer().tokenizer);
        let message = refused(&source, &parent.path().join("x.gguf"), GGUF_F32);
        assert!(message.contains("write hf, corenet or mlx instead"), "{message}");
    }
}

#[test]
fn keys_of_a_configuration_that_are_not_ours_survive() {
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::copy(golden("tiny/hf/model.safetensors"), source.join("model.safetensors")).unwrap();
    let mut config = json(&golden("tiny/hf/config.json"));
    config["my_own_key"] = serde_json::json!({ "kept": [1, 2] });
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    for (name, target) in [("hf", Target::HuggingFace(DType::F16)), ("mlx", Target::Mlx(DType::F16, None))] {
        written(&open(&source).unwrap(), &parent.path().join(name), target);
        let written = json(&parent.path().join(name).join("config.json"));
        assert_eq!(written["my_own_key"], config["my_own_key"], "{name}");
        assert_eq!(written["torch_dtype"], "float16", "{name}");
    }
}

#[test]
fn a_tokenizer_is_carried_along_with_its_companions() {
    let parent = tempfile::tempdir().unwrap();
    let shelf = parent.path().join("shelf");
    std::fs::create_dir(&shelf).unwrap();
    let model = golden("gguf/tokenizer.model");
    std::fs::copy(&model, shelf.join("tokenizer.model")).unwrap();
    std::fs::write(shelf.join("tokenizer_config.json"), "{\"theirs\": 1}").unwrap();
    let with = |file: PathBuf| carrying(with_tokenizer(), Some(StoredTokenizer::File(file)));
    let target = Target::HuggingFace(DType::F32);

    let output = parent.path().join("with-companions");
    written(&with(shelf.join("tokenizer.model")), &output, target);
    assert_eq!(std::fs::read(output.join("tokenizer.model")).unwrap(), std::fs::read(&model).unwrap());
    assert_eq!(json(&output.join("tokenizer_config.json")), serde_json::json!({ "theirs": 1 }));

    // A file of another name stands alone, and gets the name that is looked for.
    std::fs::copy(&model, shelf.join("small.model")).unwrap();
    let output = parent.path().join("alone");
    written(&with(shelf.join("small.model")), &output, target);
    assert!(output.join("tokenizer.model").exists());
    let config = json(&output.join("tokenizer_config.json"));
    assert_eq!((&config["bos_token"], &config["tokenizer_class"]), (&"<s>".into(), &"LlamaTokenizer".into()));
}

#[test]
fn nothing_is_left_behind_by_a_conversion_that_fails() {
    let parent = tempfile::tempdir().unwrap();
    let left = || std::fs::read_dir(parent.path()).unwrap().count();
    let source = with_tokenizer();
    let targets = [
        Target::HuggingFace(DType::F16),
        Target::CoreNet(DType::F16),
        Target::Mlx(DType::F16, AffineFormat::new(4, 32)),
        Target::Gguf(Quantisation::Blocks(BlockFormat::Q4_0)),
    ];
    for target in targets {
        // Stopped at each of the first tensors.
        for limit in [0, 1, 5] {
            let done = Mutex::new(0);
            let progress = |_: usize| {
                let mut done = done.lock().unwrap();
                *done += 1;
                if *done > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped = convert(&source, &parent.path().join("new"), target, &Threads::new(2), &progress);
            assert!(matches!(stopped, Err(FormatError::Stopped)), "{target:?}: {stopped:?}");
            assert_eq!(left(), 0, "{target:?} left something behind");
        }
    }
    // 32 and 96 columns make no whole groups of 64.
    let narrow = open(&golden("tiny_variants/noglu_mqa")).unwrap();
    let message = refused(&narrow, &parent.path().join("new"), Target::Mlx(DType::F16, AffineFormat::new(4, 64)));
    assert!(message.contains("whole groups of 64"), "{message}");
    let without = carrying(with_tokenizer(), None);
    let message = refused(&without, &parent.path().join("new"), GGUF_F32);
    assert!(message.contains("no tokenizer") && message.contains("--tokenizer"), "{message}");
    assert_eq!(left(), 0);

    std::fs::write(parent.path().join("old"), "mine").unwrap();
    for target in targets {
        assert!(refused(&source, &parent.path().join("old"), target).contains("exists already"));
    }
    assert_eq!(std::fs::read(parent.path().join("old")).unwrap(), b"mine");
}

#[test]
fn progress_counts_every_parameter_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = with_tokenizer();
    for (name, target) in [("mlx", Target::Mlx(DType::F16, AffineFormat::new(4, 32))), ("gguf", GGUF_F32)] {
        let done = Mutex::new(0);
        let count = |elements| {
            *done.lock().unwrap() += elements;
            ControlFlow::Continue(())
        };
        convert(&source, &folder.path().join(name), target, &Threads::single(), &count).unwrap();
        assert_eq!(*done.lock().unwrap(), source.config.parameters(), "{name}");
    }
}

#[test]
fn more_bits_move_the_logits_less() {
    let folder = tempfile::tempdir().unwrap();
    let source = with_tokenizer();
    let ids =
        source.tokenizer.as_ref().unwrap().open().unwrap().encode_with("Hello world, once upon a time", true, false);
    let distance = |other: &StoredModel| compare(&source, other, &ids, &Threads::new(2)).unwrap();
    let itself = distance(&with_tokenizer());
    assert_eq!((itself.max_difference, itself.mean_kl, itself.top1_agreement), (0.0, 0.0, 1.0));
    assert_eq!(itself.positions, ids.len());
    let mut before = 0.0;
    for format in [BlockFormat::Q8_0, BlockFormat::Q5_1, BlockFormat::Q4_0] {
        let path = folder.path().join(format.to_string());
        let found = distance(&written(&source, &path, Target::Gguf(Quantisation::Blocks(format))));
        println!("{format}: {found:?}");
        assert!(found.mean_kl > before, "{format}: {} is not above {before}", found.mean_kl);
        before = found.mean_kl;
    }
    assert!(compare(&source, &with_tokenizer(), &[], &Threads::single()).is_err());
    assert!(
        compare(&source, &with_tokenizer(), &[1, 384], &Threads::single()).unwrap_err().to_string().contains("384")
    );
}

#[test]
fn the_largest_model_is_warned_of_half_precision_and_the_quantised_of_more() {
    let (large, floats) = (ModelConfig::openelm_3b(), Encoding::Float(DType::F32));
    let affine = AffineFormat::new(4, 64);
    for target in [Target::HuggingFace(DType::F16), Target::Mlx(DType::F16, affine)] {
        assert!(target.warnings(&large, floats)[0].contains("bfloat16"));
        assert!(target.warnings(&ModelConfig::openelm_1_1b(), floats).is_empty());
    }
    let q4_0 = Target::Gguf(Quantisation::Blocks(BlockFormat::Q4_0));
    for target in [Target::CoreNet(DType::BF16), q4_0] {
        assert!(target.warnings(&large, floats).is_empty());
    }
    assert!(Target::Mlx(DType::BF16, affine).warnings(&large, q4_0_encoding())[0].contains("Q4_0"));
    assert!(q4_0.warnings(&large, q4_0_encoding()).is_empty());
    assert!(Target::HuggingFace(DType::BF16).warnings(&large, q4_0_encoding()).is_empty());
}

fn q4_0_encoding() -> Encoding {
    Encoding::Blocks(BlockFormat::Q4_0)
}
