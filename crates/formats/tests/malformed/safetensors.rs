//! Safetensors files as such: a header that lies. What the tensors in a sound one must be is the matter of `huggingface`.

use openelm_formats::huggingface;
use openelm_model::DType;

use super::{assert_refused, micro};

/// A file of this header and `data` bytes of tensors.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn refuses(what: &str, bytes: Vec<u8>, parts: &[&str]) {
    let config = huggingface::config_to_json(&micro(), DType::F32).to_string();
    let parts = [&["weights.safetensors"], parts].concat();
    assert_refused(what, &parts, || huggingface::from_bytes(config.as_bytes(), bytes.into(), "weights.safetensors"));
}

#[test]
fn headers_that_lie() {
    let tensor = |dtype: &str, shape: &str, begin: i64, end: i64| {
        format!(r#""t{begin}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let (a, b) = (tensor("F32", "[4]", 0, 16), tensor("F32", "[4]", 16, 32));
    let damaged = &["not a sound safetensors file"][..];
    for (what, header, data) in [
        ("no JSON", "{".to_owned(), 0),
        ("another JSON", "[1, 2]".to_owned(), 0),
        ("not UTF-8", "\u{fffd}".to_owned(), 0),
        ("a text for a tensor", r#"{"t": "F32"}"#.to_owned(), 0),
        ("nested deeply", format!("{}{}", r#"{"t":"#.repeat(100_000), "}".repeat(100_000)), 0),
        ("overlapping", format!("{{{a},{}}}", tensor("F32", "[4]", 8, 24)), 24),
        ("with a hole", format!("{{{a},{}}}", tensor("F32", "[4]", 20, 36)), 36),
        ("reversed", format!("{{{}}}", tensor("F32", "[4]", 16, 0)), 16),
        ("negative", format!("{{{}}}", tensor("F32", "[4]", -16, 0)), 16),
        ("beyond the file", format!("{{{a},{b}}}"), 31),
        ("bytes left over", format!("{{{a},{b}}}"), 33),
        ("a shape that overflows", format!("{{{}}}", tensor("F32", "[4294967296,4294967296,16]", 0, 16)), 16),
        ("a shape that is too large", format!("{{{}}}", tensor("F32", "[1099511627776]", 0, 16)), 16),
        ("a shape of fractions", format!("{{{}}}", tensor("F32", "[0.5]", 0, 16)), 16),
        ("an unknown dtype", format!("{{{}}}", tensor("F33", "[4]", 0, 16)), 16),
        ("one name twice", format!("{{{a},{}}}", a.replace("[0,16]", "[16,32]")), 32),
    ] {
        refuses(what, file(&header, data), damaged);
    }
    let mut not_utf8 = file(&format!("{{{a}}}"), 16);
    not_utf8[10] = 0xff;
    refuses("a name that is not UTF-8", not_utf8, damaged);
}

#[test]
fn tensors_of_no_model() {
    refuses("no tensors", file("{}", 0), &["transformer.token_embeddings.weight", "missing"]);
    let stray = r#"{"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}"#;
    refuses("a tensor of something else", file(stray, 0), &["transformer.token_embeddings.weight", "missing"]);
}
