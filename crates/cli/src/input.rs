//! Texts that a command is given in a file or on standard input.

use std::io::{Read, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The text in the file at `path`.
pub fn read_file(path: &Path) -> Result<String> {
    std::fs::read(path).map_err(anyhow::Error::from).and_then(text).with_context(|| path.display().to_string())
}

/// The text on standard input.
pub fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    let read = stdin().read_to_end(&mut bytes);
    read.map_err(anyhow::Error::from).and_then(|_| text(bytes)).context("standard input")
}

/// `bytes` without the byte order mark that some editors put before a text.
fn text(bytes: Vec<u8>) -> Result<String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        bail!("the text is UTF-16; bring it into UTF-8, for example with iconv -f UTF-16 -t UTF-8");
    }
    let mut text = String::from_utf8(bytes).context("the text is not UTF-8")?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}
