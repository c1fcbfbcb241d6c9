//! `.pt` files. The first byte says whether the rest is a whole file, or the pickle in an archive that is sound otherwise:
//! checksums would keep mutations from ever reaching the pickle.

#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use openelm_formats::corenet;
use openelm_fuzz::use_model;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("there is room for temporary files");
}

fn archive(pickle: &[u8], file: File) -> std::io::Result<()> {
    let mut archive = ZipWriter::new(file);
    let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    archive.start_file("a/data.pkl", plain)?;
    archive.write_all(pickle)?;
    for i in 0..12 {
        archive.start_file(format!("a/data/{i}"), plain)?;
        archive.write_all(&[i; 1024])?;
    }
    archive.finish()?;
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let path = FOLDER.with(|folder| folder.path().join("model.pt"));
    let mut file = File::create(&path).expect("the folder is ours");
    if mode == 0 { file.write_all(data) } else { archive(data, file) }.expect("there is room for temporary files");
    if let Ok(model) = corenet::read(&path) {
        use_model(model);
    }
});
