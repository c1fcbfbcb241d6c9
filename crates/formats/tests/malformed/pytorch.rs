//! `.pt` files: archives and pickles, some of which mean harm.

use std::fs;
use std::path::Path;

use openelm_formats::{FormatError, corenet};
use openelm_model::kernels::Threads;
use openelm_model::{DType, Model};
use zip::CompressionMethod;

use super::pickle::{BEGIN, ELEMENTS, END, PickledTensor, archive, checkpoint, dictionary, global, model, text, tuple};
use super::{MAX_BYTES, assert_refused, find, measured, micro, put, some_of};

/// A sound file.
fn sound() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    corenet::write(folder.path(), &micro(), &some_of, DType::F32, &Threads::single()).unwrap();
    fs::read(folder.path().join("checkpoint_average.pt")).unwrap()
}

/// Reads a file with all of its tensors.
fn load(file: &Path) -> Result<Model, FormatError> {
    corenet::read(file)?.into_model()
}

/// Calls `check` with a file that `write` made, in a folder in which nothing else may appear.
fn in_a_folder_of_its_own(write: impl FnOnce(&Path), check: impl FnOnce(&Path)) {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("inner");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("model.pt");
    write(&file);
    check(&file);
    let count = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!((count(&folder), count(outer.path())), (1, 1), "files appeared");
}

fn refuses_file(what: &str, parts: &[&str], write: impl FnOnce(&Path)) {
    in_a_folder_of_its_own(write, |file| {
        assert_refused(what, &[&["model.pt"], parts].concat(), || load(file));
    });
}

fn refuses(what: &str, bytes: &[u8], parts: &[&str]) {
    refuses_file(what, parts, |file| fs::write(file, bytes).unwrap());
}

fn refuses_pickle(what: &str, pickle: &[u8], parts: &[&str]) {
    refuses_file(what, parts, |file| checkpoint(file, pickle));
}

/// A sound model's pickle with a change to what it says of one norm, a vector of 8.
fn with(change: impl FnOnce(&mut PickledTensor)) -> Vec<u8> {
    let mut norm = PickledTensor::of(&[8]);
    change(&mut norm);
    let mut items = model();
    items.last_mut().unwrap().1 = norm.pickled();
    dictionary(&items)
}

#[test]
fn sound_files_are_read_within_the_limit() {
    in_a_folder_of_its_own(
        |file| fs::write(file, sound()).unwrap(),
        |file| {
            measured("a sound file", MAX_BYTES, || load(file)).unwrap();
        },
    );
    in_a_folder_of_its_own(
        |file| checkpoint(file, &with(|_| ())),
        |file| {
            measured("a sound file", MAX_BYTES, || load(file)).unwrap();
        },
    );
}

#[test]
fn files_that_are_cut_off() {
    let sound = sound();
    refuses("empty", b"", &[]);
    for length in (1..sound.len()).step_by(61) {
        refuses("cut off", &sound[..length], &[]);
    }
    refuses("beheaded", &sound[100..], &[]);
}

#[test]
fn archives_that_lie() {
    let sound = sound();
    let directory = find(&sound, b"PK\x01\x02");
    for (what, at, new) in [
        ("sizes beyond the file", directory + 20, [0xf0; 8].as_slice()),
        ("an offset beyond the file", directory + 42, &[0xf0; 4]),
        ("a name beyond the file", directory + 28, &[0xff, 0xff]),
        ("a method that is not known", directory + 10, &[0x77, 0]),
        ("encrypted", directory + 8, &[1, 0]),
    ] {
        let mut lying = sound.clone();
        put(&mut lying, at, new);
        refuses(what, &lying, &[]);
    }
    let mut flipped = sound.clone();
    let at = find(&sound, b"layers.0.attn.qkv_proj");
    flipped[at] ^= 1;
    refuses("a wrong checksum", &flipped, &["checksum"]);
    refuses_file("no pickle", &["data.pkl"], |file| archive(file, &[("a/version", b"3\n")], CompressionMethod::Stored));
    let (pickle, storage) = (with(|_| ()), [0; 4 * ELEMENTS]);
    refuses_file("big-endian", &["endian"], |file| {
        let entries = [("a/data.pkl", &pickle[..]), ("a/byteorder", b"big"), ("a/data/0", &storage)];
        archive(file, &entries, CompressionMethod::Stored);
    });
    refuses_file("a short storage", &["storage"], |file| {
        archive(file, &[("a/data.pkl", &pickle), ("a/data/0", &storage[..4])], CompressionMethod::Stored);
    });
}

#[test]
fn archives_that_mean_harm() {
    // 128 MiB of zeros in an eighth of a megabyte.
    let bomb = vec![0; 128 << 20];
    refuses_file("a bomb for a pickle", &[], |file| {
        archive(file, &[("a/data.pkl", &bomb)], CompressionMethod::Deflated);
    });
    let (pickle, storage) = (with(|_| ()), [0; 4 * ELEMENTS]);
    let write =
        |file: &Path| archive(file, &[("a/data.pkl", &pickle), ("a/data/0", &bomb)], CompressionMethod::Deflated);
    // Only as much of a storage is unpacked as the tensors have.
    in_a_folder_of_its_own(write, |file| drop(measured("a bomb for a storage", MAX_BYTES, || load(file))));
    // Names are looked up, never opened.
    refuses_file("paths that lead elsewhere", &[], |file| {
        let entries = [("a/data.pkl", &pickle[..]), ("../../evil/data/0", &storage), ("/tmp/../../evil", &storage)];
        archive(file, &entries, CompressionMethod::Stored);
    });
}

#[test]
fn pickles_are_never_executed() {
    let outer = tempfile::tempdir().unwrap();
    let trace = outer.path().join("trace");
    let command = text(&format!("echo > {}", trace.display()));
    for (module, name) in [("os", "system"), ("posix", "system"), ("subprocess", "check_output"), ("builtins", "eval")]
    {
        let call = [&global(module, name)[..], &tuple(std::slice::from_ref(&command)), b"R"].concat();
        let state = [&global(module, name)[..], b")\x81}", &text("x"), &command, b"sb"].concat();
        let old = [b"(", &command[..], format!("i{module}\n{name}\n").as_bytes()].concat();
        let stacked = [&text(module)[..], &text(name), b"\x93", &tuple(std::slice::from_ref(&command)), b"R"].concat();
        for (how, evil) in [("REDUCE", call), ("NEWOBJ and BUILD", state), ("INST", old), ("STACK_GLOBAL", stacked)] {
            let what = format!("{module}.{name} through {how}");
            refuses_pickle(&what, &[BEGIN, &evil, END].concat(), &["not a sound PyTorch file"]);
            // In a tensor's place it is no tensor.
            let mut items = model();
            items.last_mut().unwrap().1 = evil.clone();
            refuses_pickle(&what, &dictionary(&items), &[]);
            // Beside the tensors it is refused or passed over, like anything that is no tensor.
            let mut items = model();
            items.push(("optimizer".to_owned(), evil));
            in_a_folder_of_its_own(|file| checkpoint(file, &dictionary(&items)), |file| drop(load(file)));
        }
    }
    assert!(!trace.exists(), "a pickle was executed");
}

#[test]
fn pickles_that_lie_about_a_tensor() {
    for (what, pickle, part) in [
        ("another shape", with(|t| t.shape = vec![4, 2]), ""),
        ("a shape beyond the storage", with(|t| t.shape = vec![ELEMENTS as i64 + 1]), "needs 257 elements"),
        ("a shape that overflows", with(|t| (t.shape, t.strides) = (vec![1 << 40, 1 << 40], vec![1, 1])), "overflows"),
        ("a shape below zero", with(|t| t.shape = vec![-8]), "non-negative"),
        ("a shape of all numbers", with(|t| (t.shape, t.strides) = (vec![i64::MAX], vec![0])), "overflows"),
        ("strides below zero", with(|t| t.strides = vec![-1]), "non-negative"),
        ("strides that are too few", with(|t| t.strides = vec![]), "stride rank"),
        ("strides beyond the storage", with(|t| t.strides = vec![1 << 61]), ""),
        ("an offset beyond the storage", with(|t| t.offset = 1 << 60), "needs"),
        ("an offset below zero", with(|t| t.offset = -1), "non-negative"),
        ("a storage that is not there", with(|t| t.key = "7"), "norm.weight"),
        ("a storage that leads elsewhere", with(|t| t.key = "../../a/data/0"), ""),
        ("a storage smaller than it says", with(|t| (t.elements, t.offset) = (1 << 40, 1000)), "norm.weight"),
        ("a storage of no known type", with(|t| t.storage = "OddStorage"), "OddStorage"),
        ("integers", with(|t| t.storage = "LongStorage"), ""),
        ("integers of four bytes", with(|t| t.storage = "IntStorage"), "I32"),
        (
            "gigabytes by strides of 0",
            with(|t| (t.shape, t.strides) = (vec![2_000_000_000], vec![0])),
            "found [2000000000]",
        ),
        ("terabytes by strides of 0", with(|t| (t.shape, t.strides) = (vec![1 << 40], vec![0])), "byte limit"),
    ] {
        refuses_pickle(what, &pickle, &[part]);
    }
    let mut twice = model();
    twice.push(("norm.weight".to_owned(), PickledTensor::of(&[16]).pickled()));
    refuses_pickle("one name twice", &dictionary(&twice), &["norm.weight", "expected [8], found [16]"]);
    let mut fewer = model();
    fewer.retain(|(name, _)| name != "norm.weight");
    refuses_pickle("a tensor too few", &dictionary(&fewer), &["norm.weight", "missing"]);
    let mut more = model();
    more.push(("layers.0.extra.weight".to_owned(), PickledTensor::of(&[16]).pickled()));
    refuses_pickle("a tensor too many", &dictionary(&more), &["layers.0.extra.weight", "no such tensor"]);
    let mut no_matrix = model();
    no_matrix[0].1 = PickledTensor::of(&[128]).pickled();
    refuses_pickle("a vector for a matrix", &dictionary(&no_matrix), &["geometry"]);
}

#[test]
fn pickles_of_nothing() {
    for (what, body) in [
        ("a text beyond the file", b"X\xff\xff\xff\xff".as_slice()),
        ("bytes beyond the file", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("a number beyond the file", b"\x8b\xff\xff\xff\x7f"),
        ("a memo far away", b"]r\xff\xff\xff\xff"),
        ("a memo that is not there", b"h\x05"),
        ("an empty stack", b"0"),
        ("a mark that is not there", b"t"),
        ("a text that is not UTF-8", b"X\x02\x00\x00\x00\xff\xfe"),
        ("an opcode that is not known", b"\xff"),
        ("a protocol that is not known", b"\x80\x77N"),
        ("nothing", b""),
        ("a number", b"K\x01"),
        ("a list that holds itself", b"]q\x00h\x00a"),
    ] {
        refuses_pickle(what, &[BEGIN, body, END].concat(), &["not a sound PyTorch file"]);
    }
}

#[test]
fn pickles_nested_deeply() {
    const LEVELS: usize = 20_000;
    for (what, open, close) in [("tuples", "(", &b"t"[..]), ("lists", "]", b"a"), ("tuples of one", "N", b"\x85")] {
        let body = [open.repeat(LEVELS).as_bytes(), &close.repeat(LEVELS)].concat();
        refuses_pickle(what, &[BEGIN, &body, END].concat(), &["not a sound PyTorch file"]);
    }
    let mut inner = PickledTensor::of(&[8]).pickled();
    for _ in 0..2000 {
        inner = [b"}", &text("x")[..], &inner, b"s"].concat();
    }
    refuses_pickle("dictionaries", &[BEGIN, &inner, END].concat(), &["not a sound PyTorch file"]);
}

#[test]
fn a_dictionary_shared_a_billion_times() {
    // Each level holds the one below twice: 2^60 tensors in a few hundred bytes.
    let mut body = [&PickledTensor::of(&[8]).pickled()[..], b"q\x00"].concat();
    for level in 0..60u8 {
        let below = [b"h", &[level][..]].concat();
        let entries = [&text("a")[..], &below, &text("b"), &below].concat();
        body.extend([b"}(", &entries[..], b"uq", &[level + 1]].concat());
    }
    let pickle = [BEGIN, &body, END].concat();
    in_a_folder_of_its_own(
        |file| checkpoint(file, &pickle),
        |file| {
            // The library stops at a million copies.
            let read = measured("shared dictionaries", 512 << 20, || load(file));
            assert!(read.unwrap_err().to_string().contains("model.pt"));
        },
    );
}
