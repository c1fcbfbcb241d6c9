//! GGUF files: a header in which any number may lie.

use std::path::Path;

use bytes::Bytes;
use openelm_formats::EmbeddedTokenizer;
use openelm_formats::gguf::{self, Quantisation};
use openelm_model::kernels::Threads;
use openelm_model::{DType, Geometry};
use openelm_testing::golden;

use super::{MAX_BYTES, assert_refused, find, measured, put, some_of};

/// A sound file.
fn sound() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let geometry = Geometry { layers: 1, dim: 32, head_dim: 4, gqa_groups: 1, ffn_divisor: 32, ..Geometry::default() };
    let pieces = EmbeddedTokenizer::from(Bytes::from(std::fs::read(golden("gguf/tokenizer.model")).unwrap()));
    let (file, config) = (folder.path().join("model.gguf"), geometry.build(384).unwrap());
    gguf::write(&file, "x", &config, &pieces.into(), &some_of, Quantisation::Float(DType::F32), &Threads::single())
        .unwrap();
    std::fs::read(file).unwrap()
}

fn refuses(what: &str, bytes: Vec<u8>, parts: &[&str]) {
    assert_refused(what, &[&["model.gguf"], parts].concat(), || {
        gguf::from_bytes(bytes.into(), Path::new("model.gguf"))
    });
}

/// The sound file with `new` put `skip` bytes behind a name in its header: of a key the type comes first (4 bytes), of a tensor
/// the number of dimensions (4), the dimensions (8 each), the type (4) and the offset (8).
fn with(name: &str, skip: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = sound();
    let at = find(&bytes, name.as_bytes()) + name.len() + skip;
    put(&mut bytes, at, new);
    bytes
}

/// The sound file with a name replaced by another of the same length.
fn renamed(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = sound();
    let at = find(&bytes, from.as_bytes());
    put(&mut bytes, at, to.as_bytes());
    bytes
}

#[test]
fn files_that_are_cut_off() {
    let sound = sound();
    refuses("empty", Vec::new(), &["empty"]);
    let tensors = find(&sound, b"token_embd.weight") + 2000;
    for length in (1..tensors).step_by(29).chain((tensors..sound.len()).step_by(997)) {
        refuses("cut off", sound[..length].to_vec(), &[]);
    }
    refuses("cut off by a byte", sound[..sound.len() - 1].to_vec(), &["beyond the end"]);
}

#[test]
fn beginnings_of_something_else() {
    let at = |at: usize, new: &[u8]| {
        let mut bytes = sound();
        put(&mut bytes, at, new);
        bytes
    };
    refuses("another magic", at(0, b"GGML"), &["does not begin with GGUF"]);
    refuses("version 1", at(4, &1u32.to_le_bytes()), &["version is 1"]);
    refuses("version 4", at(4, &4u32.to_le_bytes()), &["version is 4"]);
    refuses("big-endian", at(4, &3u32.to_be_bytes()), &["big-endian"]);
    refuses("big-endian, version 2", at(4, &2u32.to_be_bytes()), &["big-endian"]);
    refuses("tensors without number", at(8, &u64::MAX.to_le_bytes()), &[]);
    refuses("keys without number", at(16, &u64::MAX.to_le_bytes()), &["in the middle of its header"]);
    refuses("no tensors", at(8, &0u64.to_le_bytes()), &["token_embd.weight"]);
    refuses("no keys", at(16, &0u64.to_le_bytes()), &[]);
    refuses("a key without end", at(24, &u64::MAX.to_le_bytes()), &["in the middle of its header"]);
    refuses("a key beyond the file", at(24, &(1u64 << 40).to_le_bytes()), &["in the middle of its header"]);
    refuses("a key that is not UTF-8", at(32, &[0xff]), &["UTF-8"]);
}

#[test]
fn metadata_that_lie() {
    let u32s = |value: u32| value.to_le_bytes();
    let tokens = "tokenizer.ggml.tokens";
    for (what, bytes, part) in [
        ("a type that is not known", with("openelm.block_count", 0, &u32s(13)), "type 13"),
        ("a text for a number", with("openelm.block_count", 0, &u32s(6)), "block_count"),
        ("a text without end", with("general.name", 4, &u64::MAX.to_le_bytes()), "in the middle of its header"),
        ("an array without end", with(tokens, 8, &u64::MAX.to_le_bytes()), "does not fit the file"),
        ("an array longer than the file", with(tokens, 8, &(1u64 << 33).to_le_bytes()), "does not fit the file"),
        ("an array of arrays of arrays", with(tokens, 4, &u32s(9)), ""),
        ("an array of what is not known", with(tokens, 4, &u32s(77)), "type 77"),
        ("fewer scores than tokens", with("tokenizer.ggml.scores", 4, &u32s(0)), ""),
        ("one key twice", renamed("openelm.attention.key_length", "openelm.attention.head_count"), "twice"),
        ("no layers", with("openelm.block_count", 4, &u32s(0)), "layers"),
        ("layers without number", with("openelm.block_count", 4, &u32s(u32::MAX)), "block_count"),
        ("one layer too many", with("openelm.block_count", 4, &u32s(2)), "entries for 2 layers"),
        ("another architecture", with("general.architecture", 12, b"openllm"), "openllm"),
        ("no width", with("openelm.embedding_length", 4, &u32s(0)), "model_dim is 0"),
        ("a width without measure", with("openelm.embedding_length", 4, &u32s(u32::MAX)), ""),
        ("an odd head", with("openelm.attention.key_length", 4, &u32s(3)), "heads are 3 wide"),
        ("a head without measure", with("openelm.attention.key_length", 4, &u32s(u32::MAX - 1)), ""),
        ("heads without number", with("openelm.attention.head_count", 16, &u32s(i32::MAX as u32)), ""),
        ("heads below zero", with("openelm.attention.head_count", 16, &u32s(u32::MAX)), "head_count"),
        ("no head", with("openelm.attention.head_count", 16, &u32s(0)), "heads"),
        ("a network without measure", with("openelm.feed_forward_length", 16, &u32s(i32::MAX as u32)), ""),
        ("another norm", with("openelm.attention.layer_norm_rms_epsilon", 4, &1e-5f32.to_le_bytes()), "1e-6"),
        (
            "a norm that is no number",
            with("openelm.attention.layer_norm_rms_epsilon", 4, &f32::NAN.to_le_bytes()),
            "1e-6",
        ),
        ("a rotation that is no number", with("openelm.rope.freq_base", 4, &f32::NAN.to_le_bytes()), "rope_theta"),
    ] {
        refuses(what, bytes, &[part]);
    }
    // Arrays in arrays, thousands deep.
    let mut nested = b"GGUF\x03\0\0\0".to_vec();
    nested.extend([0u64.to_le_bytes(), 1u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
    nested.extend(b"x\x09\0\0\0");
    for _ in 0..100_000 {
        nested.extend(b"\x09\0\0\0\x01\0\0\0\0\0\0\0");
    }
    refuses("arrays nested deeply", nested, &["type 9"]);
    // With a key behind that the alignment is read from.
    for (what, alignment) in
        [("an alignment of nothing", 0u32), ("an odd alignment", 48), ("a vast alignment", 1 << 31)]
    {
        let mut bytes = renamed("general.quantization_version", "general.quantization_versiom");
        let at = find(&bytes, b"general.quantization_versiom");
        put(&mut bytes, at - 8, &17u64.to_le_bytes());
        let shorter = [b"general.alignment".as_slice(), &4u32.to_le_bytes(), &alignment.to_le_bytes()].concat();
        bytes.splice(at..at + 28 + 8, shorter);
        refuses(what, bytes, &[]);
    }
}

#[test]
fn tensors_that_lie() {
    let norm = "output_norm.weight";
    // One dimension: it is followed by the type (12 bytes on) and the offset (16 bytes on).
    for (what, bytes, parts) in [
        ("no dimensions", with(norm, 0, &0u32.to_le_bytes()), &["output_norm.weight", "0 dimensions"][..]),
        ("five dimensions", with(norm, 0, &5u32.to_le_bytes()), &["output_norm.weight", "5 dimensions"]),
        ("another shape", with(norm, 4, &33u64.to_le_bytes()), &["output_norm.weight", "expected [32], found [33]"]),
        ("a shape without measure", with(norm, 4, &u64::MAX.to_le_bytes()), &["output_norm.weight"]),
        ("a type that is not known", with(norm, 12, &99u32.to_le_bytes()), &["output_norm.weight", "number 99"]),
        ("a type that was taken back", with(norm, 12, &4u32.to_le_bytes()), &["output_norm.weight", "number 4"]),
        ("an offset within a row", with(norm, 16, &33u64.to_le_bytes()), &["output_norm.weight", "not aligned"]),
        ("an offset beyond the file", with(norm, 16, &(1u64 << 40).to_le_bytes()), &["output_norm.weight", "beyond"]),
        ("an offset beyond all", with(norm, 16, &(u64::MAX - 31).to_le_bytes()), &["output_norm.weight"]),
        ("two tensors in one place", with(norm, 16, &0u64.to_le_bytes()), &["output_norm.weight", "overlap"]),
        (
            "one tensor twice",
            renamed("blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"),
            &["attn_k_norm", "twice"],
        ),
        ("another name", renamed("output_norm.weight", "output_narm.weight"), &["output_norm.weight", "missing"]),
        ("a name that is not UTF-8", with("blk.0.attn_norm.weigh", 0, &[0xff]), &["UTF-8"]),
    ] {
        refuses(what, bytes, parts);
    }
    // The embedding table tells the size of the vocabulary.
    let table = with("token_embd.weight", 12, &(1u64 << 62).to_le_bytes());
    refuses("a vocabulary without measure", table, &[]);
}

#[test]
fn reading_a_sound_file_stays_within_the_limit() {
    let bytes = sound();
    measured("a sound file", MAX_BYTES, || gguf::from_bytes(bytes.into(), Path::new("model.gguf"))).unwrap();
}
