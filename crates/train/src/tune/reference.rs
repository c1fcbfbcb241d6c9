//! How probable the reference finds the answers, computed once and kept in a file.
//!
//! The file's name is made of what it depends on: the model, the token ids of all pairs, and the arithmetic. It holds two numbers
//! of 64 bits, little-endian, for each pair. Work that was interrupted goes on where it stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::kernels::Threads;
use openelm_model::kernels::rounded::Products;
use sha2::{Digest, Sha256};

use super::error::TuneError;
use super::examples::Examples;
use super::lesson::{Lesson, Tokens};
use super::start::Base;
use crate::network::{Keeping, Network};

/// Digits of a name.
const DIGITS: usize = 32;
/// Pairs that are computed together.
const PAIRS: usize = 4;

/// What the reference is asked with.
pub(super) struct Reference<'b> {
    pub base: &'b Base,
    /// Of the base.
    pub fingerprint: &'b str,
    pub products: Products,
    pub threads: &'b Threads,
    /// Where the file is.
    pub folder: &'b Path,
    pub stop: &'b AtomicBool,
}

impl Reference<'_> {
    /// The log-probabilities of both answers of each pair, in nats, one behind the other. `progress` hears how many pairs are done.
    ///
    /// # Errors
    /// If a file cannot be read or written, and if `stop` becomes true; what was computed until then is kept.
    pub fn of(&self, examples: &mut Examples, progress: &mut dyn FnMut(u64)) -> Result<Vec<f64>, TuneError> {
        let path = self.path(examples);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| TuneError::Io { path, source }
        };
        if path.exists() {
            let known = numbers(&fs::read(&path).map_err(at(&path))?);
            if known.len() != 2 * examples.len() {
                let reason = format!("it has {} numbers instead of {}", known.len(), 2 * examples.len());
                return Err(TuneError::Reference { path, reason });
            }
            return Ok(known);
        }
        fs::create_dir_all(self.folder).map_err(at(self.folder))?;
        let begun = path.with_extension("part");
        let mut known = match fs::read(&begun) {
            Ok(bytes) => numbers(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(at(&begun)(e)),
        };
        // A number that was cut off, or whose pair is not complete, is computed again.
        known.truncate(known.len() / (2 * PAIRS) * 2 * PAIRS);
        let mut file = open(&begun, known.len()).map_err(at(&begun))?;
        let model = self.base.trainable()?;
        let mut network = Network::new(self.base.config(), self.threads.clone(), Keeping::default(), None)
            .with_products(self.products);
        while known.len() < 2 * examples.len() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(TuneError::Stopped);
            }
            let first = known.len() / 2;
            let mut sides = Vec::new();
            for index in first..(first + PAIRS).min(examples.len()) {
                sides.extend(examples.get(index)?);
            }
            let rows: Vec<Vec<&Tokens>> = sides.iter().map(|tokens| vec![&tokens[..]]).collect();
            let lesson = Lesson::new(&rows, Vec::new());
            let sums = lesson.sums(&network.log_probabilities(&model, &lesson.sequences));
            let bytes: Vec<u8> = sums.iter().flat_map(|(sum, _)| sum.to_le_bytes()).collect();
            file.write_all(&bytes).map_err(at(&begun))?;
            known.extend(sums.iter().map(|(sum, _)| *sum));
            progress(known.len() as u64 / 2);
        }
        file.sync_all().map_err(at(&begun))?;
        drop(file);
        fs::rename(&begun, &path).map_err(at(&path))?;
        Ok(known)
    }

    fn path(&self, examples: &Examples) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.fingerprint);
        hash.update(&examples.sha256);
        hash.update(format!("{:?}", self.products));
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("reference-{}.f64", &digits[..DIGITS]))
    }
}

/// The file at `path` for more numbers behind the first `known`.
fn open(path: &Path, known: usize) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.set_len(8 * known as u64)?;
    let mut file = file;
    io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    Ok(file)
}

fn numbers(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])).collect()
}
