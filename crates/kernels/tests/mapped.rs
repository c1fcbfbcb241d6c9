//! Maps of files.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use openelm_kernels::MappedFile;

#[test]
fn released_pages_come_back_as_they_were() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let map = MappedFile::open(&path).unwrap();
    let before = map.as_ref().to_vec();
    map.release();
    assert!(!before.is_empty());
    assert_eq!(map.as_ref(), before);
}
