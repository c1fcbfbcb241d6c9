//! Bytes of files on their way in.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;

use crate::error::Failure;

/// The bytes of a file, chunk by chunk.
#[wasm_bindgen]
pub struct Contents(Vec<u8>);

#[wasm_bindgen]
impl Contents {
    /// Room for `length` bytes of the file `name`.
    ///
    /// # Errors
    /// If there is no memory.
    #[wasm_bindgen(constructor)]
    pub fn new(length: f64, name: &str) -> Result<Contents, Failure> {
        let mut bytes = Vec::new();
        // What does not fit a `usize` becomes the largest one, which no memory holds.
        let room = bytes.try_reserve_exact(length as usize);
        room.map_err(|_| {
            Failure::memory(format!("{name}: there is no memory for its {length} bytes; take fewer bits"))
        })?;
        Ok(Self(bytes))
    }

    /// Puts `chunk` behind what is there.
    pub fn append(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
    }
}

impl Contents {
    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        self.0.into()
    }

    pub(crate) fn length(&self) -> usize {
        self.0.len()
    }
}

/// SHA-256 of a file, chunk by chunk.
#[wasm_bindgen]
#[derive(Default)]
pub struct Hash(Sha256);

#[wasm_bindgen]
impl Hash {
    /// Of nothing yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// The hash in hexadecimal digits.
    pub fn finish(self) -> String {
        let mut digits = String::new();
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }
}
