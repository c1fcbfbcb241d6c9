//! CoreNet's YAML beside sound weights.

use std::fs;

use openelm_formats::corenet;
use openelm_model::DType;
use openelm_model::kernels::Threads;

use super::{assert_refused, micro, some_of};

fn refuses(what: &str, yaml: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    corenet::write(folder.path(), &micro(), &some_of, DType::F32, &Threads::single()).unwrap();
    fs::write(folder.path().join("config.yaml"), yaml).unwrap();
    assert_refused(what, &[&["config.yaml"], parts].concat(), || corenet::read(folder.path()));
}

fn general_gpt(keys: &str) -> String {
    format!("model: {{language_modeling: {{name: general_gpt, general_gpt: {{{keys}}}}}}}")
}

#[test]
fn configurations_that_make_no_model() {
    let known = "model_name: OpenELM-270M, vocab_size: 16, max_context_length: 16";
    let with = |from: &str, to: &str| general_gpt(&known.replace(from, to));
    refuses("a size that is a text", with("16", "many").as_bytes(), &["line 1"]);
    refuses("a size below zero", with("16", "-1").as_bytes(), &["line 1"]);
    refuses("a size beyond all numbers", with("16", &"9".repeat(400)).as_bytes(), &["line 1"]);
    refuses("no name", with("model_name", "name").as_bytes(), &["model_name"]);
    refuses("one key twice", with("vocab_size: 16", "vocab_size: 16, vocab_size: 17").as_bytes(), &["vocab_size"]);
    refuses("an anchor that is nowhere", with("16", "*none").as_bytes(), &["unknown anchor"]);
}

#[test]
fn texts_that_are_no_yaml() {
    let text = general_gpt("model_name: OpenELM-270M, vocab_size: 16, max_context_length: 16");
    refuses("cut off", &text.as_bytes()[..text.len() - 3], &[]);
    refuses("not UTF-8", b"model: \xff\xfe", &["UTF-8"]);
    refuses("tabs", b"general_gpt:\n\tx: 1\n", &[]);
    refuses("nested deeply", format!("general_gpt: {}", "[".repeat(100_000)).as_bytes(), &[]);
    refuses("nested deeply in blocks", format!("general_gpt:\n  {}x", "- ".repeat(100_000)).as_bytes(), &[]);
}

#[test]
fn a_billion_laughs() {
    let mut bomb = "a0: &a0 lol\n".to_owned();
    for i in 1..40 {
        let before = format!("*a{}", i - 1);
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![before; 9].join(", "));
    }
    bomb += "model: {language_modeling: {name: x, general_gpt: *a39}}\n# general_gpt:\n";
    refuses("a bomb", bomb.as_bytes(), &[]);
}
