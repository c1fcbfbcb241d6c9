//! What tests of several crates share: the reference data that the peers made, a server, a small training run.
//!
//! Small files lie in the repository under `tests/golden`; their README says who made them and how near one must come.
//! Files that may not be published (other people's text, Meta's tokenizer) are looked for in a folder beside the
//! repository, `../shared`, or where the environment variable `OPENELM_SHARED` points; without them a test skips.

mod archive;
pub mod bucket;
pub mod run;
pub mod server;
mod signals;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

pub use archive::checkpoint;
pub use signals::interrupts_are_ignored;

/// An array of an `.npz` file, its values widened to `f64` (exact for `f32` and integers of 32 bits).
pub struct Array {
    /// Length of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f64>,
}

impl Array {
    /// The values as `f32`.
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&x| x as f32).collect()
    }

    /// The values as token ids.
    pub fn ids(&self) -> Vec<u32> {
        self.values.iter().map(|&x| x as u32).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Path of a committed reference file, for example `tiny/logits.npz`.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// Path of a file that the repository does not hold, for example `assets/tokenizer/llama.model`. `None`, with a line on
/// stderr that says so, where it is absent: the test then skips.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("OPENELM_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {name} is not here (set OPENELM_SHARED to the folder that holds it)");
    None
}

/// Reads a JSON file.
///
/// # Panics
/// If it cannot be read: a test without its reference data must not pass.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads all arrays of an `.npz` file, by name.
///
/// # Panics
/// If it cannot be read.
pub fn npz(path: &Path) -> BTreeMap<String, Array> {
    let fail = |e: &dyn std::fmt::Display| -> ! { panic!("{}: {e}", path.display()) };
    let file = File::open(path).unwrap_or_else(|e| fail(&e));
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).unwrap_or_else(|e| fail(&e));
    let mut arrays = BTreeMap::new();
    for entry in 0..archive.len() {
        let entry = archive.by_index(entry).unwrap_or_else(|e| fail(&e));
        let name = entry.name().unwrap_or_else(|e| fail(&e)).into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_owned) else { continue };
        let array = npyz::NpyFile::new(entry).unwrap_or_else(|e| fail(&e));
        let shape = array.shape().iter().map(|&n| n as usize).collect();
        let values: Vec<f64> = match array.dtype().descr().trim_matches('\'') {
            "<f4" => array.into_vec::<f32>().unwrap_or_else(|e| fail(&e)).into_iter().map(f64::from).collect(),
            "<f8" => array.into_vec::<f64>().unwrap_or_else(|e| fail(&e)),
            "|u1" => array.into_vec::<u8>().unwrap_or_else(|e| fail(&e)).into_iter().map(f64::from).collect(),
            "<u4" => array.into_vec::<u32>().unwrap_or_else(|e| fail(&e)).into_iter().map(f64::from).collect(),
            "<i4" => array.into_vec::<i32>().unwrap_or_else(|e| fail(&e)).into_iter().map(f64::from).collect(),
            "<i8" => array.into_vec::<i64>().unwrap_or_else(|e| fail(&e)).into_iter().map(|x| x as f64).collect(),
            other => fail(&format!("{name} has dtype {other}")),
        };
        arrays.insert(name, Array { shape, values });
    }
    arrays
}

/// The largest absolute difference of two equally long slices; NaN counts as infinite.
///
/// # Panics
/// If the lengths differ.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    a.iter().zip(b).fold(0.0, |max, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_nan() { f32::INFINITY } else { f32::max(max, difference) }
    })
}
