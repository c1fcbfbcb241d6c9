//! Pickles, opcode by opcode, and archives around them, as `torch.save` makes them.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use openelm_model::tensor_specs;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::micro;

/// Protocol 2.
pub const BEGIN: &[u8] = b"\x80\x02";
pub const END: &[u8] = b".";

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn integer(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// `(items...)`.
pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

/// What a pickle says of a tensor.
pub struct PickledTensor {
    pub storage: &'static str,
    pub key: &'static str,
    pub elements: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

/// Elements of the one storage in the archives here.
pub const ELEMENTS: usize = 256;

impl PickledTensor {
    /// A sound tensor of this shape, the first elements of the storage.
    pub fn of(shape: &[usize]) -> Self {
        Self {
            storage: "FloatStorage",
            key: "0",
            elements: ELEMENTS as i64,
            offset: 0,
            shape: shape.iter().map(|&d| d as i64).collect(),
            strides: (1..=shape.len()).map(|axis| shape[axis..].iter().product::<usize>() as i64).collect(),
        }
    }

    pub fn pickled(&self) -> Vec<u8> {
        let integers = |values: &[i64]| tuple(&values.iter().map(|&value| integer(value)).collect::<Vec<_>>());
        let storage =
            [text("storage"), global("torch", self.storage), text(self.key), text("cpu"), integer(self.elements)];
        let arguments = [
            [&tuple(&storage)[..], b"Q"].concat(),
            integer(self.offset),
            integers(&self.shape),
            integers(&self.strides),
            b"\x89".to_vec(),
            [&global("collections", "OrderedDict")[..], b")R"].concat(),
        ];
        [&global("torch._utils", "_rebuild_tensor_v2")[..], &tuple(&arguments), b"R"].concat()
    }
}

/// The items of the state dict of a sound model.
pub fn model() -> Vec<(String, Vec<u8>)> {
    tensor_specs(&micro()).into_iter().map(|spec| (spec.name, PickledTensor::of(&spec.shape).pickled())).collect()
}

/// A pickle of a dictionary.
pub fn dictionary(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [BEGIN, b"}(", &items, b"u", END].concat()
}

/// Writes an archive of these entries.
pub fn archive(file: &Path, entries: &[(&str, &[u8])], method: CompressionMethod) {
    let mut archive = ZipWriter::new(File::create(file).unwrap());
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// Writes an archive of this pickle and the storage.
pub fn checkpoint(file: &Path, pickle: &[u8]) {
    let storage = [0; 4 * ELEMENTS];
    let entries = [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &storage), ("a/version", b"3\n")];
    archive(file, &entries, CompressionMethod::Stored);
}
