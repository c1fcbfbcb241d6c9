//! Files of documents: their rows as lines of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::EvalError;

/// Longest line that is read, in bytes.
const LINE: u64 = 1 << 28;
/// Most that a compressed frame may look back, as a power of 2: what `zstd --long=31` makes.
const WINDOW: u32 = 31;

/// Extensions of files that are read, in the order they are looked for.
pub(super) const EXTENSIONS: &[&str] = &[
    "jsonl",
    "jsonl.zst",
    "jsonl.gz",
    "json",
    "json.zst",
    "json.gz",
    #[cfg(feature = "parquet")]
    "parquet",
];

/// What takes documents, one at a time, each a line of JSON.
pub(super) type Sink<'a> = dyn FnMut(&str) -> Result<(), EvalError> + 'a;

/// Hands each document in the file at `path` to `sink` as a line of JSON; gives the file's SHA-256.
pub(super) fn read(path: &Path, sink: &mut Sink<'_>) -> Result<String, EvalError> {
    openelm_formats::refuse_pointer_at(path)
        .map_err(|e| EvalError::Data { path: path.to_owned(), reason: e.to_string() })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.ends_with(".parquet") {
        parquet(path, sink)?;
        return hash(path);
    }
    let file = Hashing { file: File::open(path).map_err(EvalError::io(path))?, hasher: Sha256::new() };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let (plain, content): (&str, Box<dyn BufRead + '_>) = if let Some(plain) = name.strip_suffix(".zst") {
        let mut decoder = zstd::Decoder::with_buffer(&mut file).map_err(EvalError::io(path))?;
        decoder.window_log_max(WINDOW).map_err(EvalError::io(path))?;
        (plain, Box::new(BufReader::new(decoder)))
    } else if let Some(plain) = name.strip_suffix(".gz") {
        (plain, Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(&mut file))))
    } else {
        (&name, Box::new(&mut file))
    };
    if plain.ends_with(".json") {
        array(path, content, sink)?
    } else {
        lines(path, content, sink)?
    }
    std::io::copy(&mut file, &mut std::io::sink()).map_err(EvalError::io(path))?;
    Ok(hexadecimal(&file.into_inner().hasher.finalize()))
}

/// A file whose bytes are hashed as they are read.
struct Hashing {
    file: File,
    hasher: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn lines(path: &Path, mut content: impl BufRead, sink: &mut Sink<'_>) -> Result<(), EvalError> {
    let wrong = |reason: String| EvalError::Data { path: path.to_owned(), reason };
    for number in 1.. {
        let mut line = Vec::new();
        (&mut content).take(LINE).read_until(b'\n', &mut line).map_err(EvalError::io(path))?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 == LINE {
            return Err(wrong(format!("line {number} has more than {LINE} bytes")));
        }
        let line = String::from_utf8(line).map_err(|e| wrong(format!("line {number} is not UTF-8: {e}")))?;
        let line = line.strip_prefix('\u{feff}').filter(|_| number == 1).unwrap_or(&line).trim();
        if !line.is_empty() {
            sink(line)?;
        }
    }
    Ok(())
}

/// A JSON array of documents.
fn array(path: &Path, mut content: impl BufRead, sink: &mut Sink<'_>) -> Result<(), EvalError> {
    let wrong = |reason: String| EvalError::Data { path: path.to_owned(), reason };
    if content.fill_buf().map_err(EvalError::io(path))?.starts_with("\u{feff}".as_bytes()) {
        content.consume("\u{feff}".len());
    }
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_reader(content);
    let read = Array { sink, refused: &mut refused }.deserialize(&mut json).and_then(|()| json.end());
    match refused {
        Some(refused) => Err(refused),
        None => read.map_err(|e| wrong(format!("no JSON array: {e}"))),
    }
}

/// Hands the elements of an array on as they are read.
struct Array<'s, 'a> {
    sink: &'s mut Sink<'a>,
    /// What the sink says of the element that it does not take.
    refused: &'s mut Option<EvalError>,
}

impl<'de> DeserializeSeed<'de> for Array<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an array of documents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(document) = elements.next_element::<Value>()? {
            if let Err(e) = (self.sink)(&document.to_string()) {
                *self.refused = Some(e);
                return Err(A::Error::custom("a document was refused"));
            }
        }
        Ok(())
    }
}

#[cfg(feature = "parquet")]
use super::parquet::rows as parquet;

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _sink: &mut Sink<'_>) -> Result<(), EvalError> {
    let reason = "this build reads no Parquet; build it with --features parquet".to_owned();
    Err(EvalError::Data { path: path.to_owned(), reason })
}

/// The SHA-256 of the file at `path`.
pub(crate) fn hash(path: &Path) -> Result<String, EvalError> {
    let mut file = Hashing { file: File::open(path).map_err(EvalError::io(path))?, hasher: Sha256::new() };
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).map_err(EvalError::io(path))? > 0 {}
    Ok(hexadecimal(&file.hasher.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
