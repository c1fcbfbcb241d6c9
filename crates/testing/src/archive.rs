//! A file as `torch.save` makes it, of any length.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A sound `.pt` file of exactly `length` bytes, without tensors. Files of different lengths have nothing in common but their
/// beginning.
///
/// # Panics
/// If it is too short for an archive.
pub fn checkpoint(length: usize) -> Vec<u8> {
    let filler = length.checked_sub(archive(&[]).len()).unwrap_or_else(|| panic!("{length} bytes are no archive"));
    let filler: Vec<u8> = (0..filler as u32)
        .flat_map(|i| i.wrapping_add(length as u32).wrapping_mul(2_654_435_761).to_le_bytes())
        .take(filler)
        .collect();
    archive(&filler)
}

fn archive(filler: &[u8]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // An empty dictionary, in protocol 2.
    for (name, bytes) in [("a/data.pkl", &b"\x80\x02}."[..]), ("a/data/0", filler)] {
        let written = archive.start_file(name, options).map_err(Into::into).and_then(|()| archive.write_all(bytes));
        written.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    archive.finish().unwrap_or_else(|e| panic!("an archive in memory: {e}")).into_inner()
}
