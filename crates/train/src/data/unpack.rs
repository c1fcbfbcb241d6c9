//! Bytes of a shard, unpacked.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::DataError;
use super::content::{Content, Reader};

/// How far back zstd may refer, as a power of two: what `zstd --long=31` writes, which is the most there is, where the address
/// space has room for it.
const WINDOW_LOG: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 27 };
/// Bytes read and unpacked at a time.
const BUFFER: usize = 1 << 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    /// One that is not read.
    Other(&'static str),
}

impl Packing {
    /// What `content` begins as; frames that zstd passes over may come first, as `pzstd` has it.
    fn of(content: &Content) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        content.reader(0).take(10).read_to_end(&mut head)?;
        Ok(match head[..] {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Other("lz4")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Other("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59] => Some(Self::Other("bzip2")),
            [b'P', b'K', 3, 4, ..] => Some(Self::Other("zip")),
            _ => None,
        })
    }
}

/// Reads `content` from its beginning. It is unpacked if it begins as gzip or zstd does, as no text can; it must where its name
/// says so. What begins as other packers' files is refused.
pub(super) fn unpacked(content: &Content) -> Result<Box<dyn BufRead + Send>, DataError> {
    let path = content.path();
    let wrong = |reason: String| DataError::File { path: path.to_owned(), reason };
    let said = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Some((Packing::Gzip, "gzip")),
        Some("zst") => Some((Packing::Zstd, "zstd")),
        _ => None,
    };
    let packing = Packing::of(content).map_err(|e| wrong(e.to_string()))?;
    if let Some((said, name)) = said
        && packing != Some(said)
    {
        return Err(wrong(format!("its name says {name}, but it does not begin as {name} does")));
    }
    let bytes = BufReader::with_capacity(BUFFER, content.reader(0));
    Ok(match packing {
        None => Box::new(bytes),
        Some(Packing::Other(name)) => {
            return Err(wrong(format!("packed by {name}, which is not read; unpack it, or pack it by gzip or zstd")));
        }
        Some(Packing::Gzip) => Box::new(BufReader::with_capacity(BUFFER, Gzip { member: Some(GzDecoder::new(bytes)) })),
        Some(Packing::Zstd) => {
            let decoder = zstd::Decoder::with_buffer(bytes).and_then(|mut decoder| {
                decoder.window_log_max(WINDOW_LOG)?;
                Ok(decoder)
            });
            Box::new(BufReader::with_capacity(BUFFER, decoder.map_err(|e| wrong(e.to_string()))?))
        }
    })
}

/// The members of a gzip file, one behind the other. Zeros behind the last one are padding, as for `gzip` itself.
struct Gzip {
    member: Option<GzDecoder<BufReader<Reader>>>,
}

impl Read for Gzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.member.take() {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                self.member = Some(member);
                return Ok(read);
            }
            let mut rest = member.into_inner();
            match rest.fill_buf()?.first() {
                None => {}
                Some(0) => only_zeros(&mut rest)?,
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                Some(_) => return Err(garbage()),
            }
        }
        Ok(0)
    }
}

fn only_zeros(rest: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(garbage());
        }
        let count = bytes.len();
        rest.consume(count);
    }
}

fn garbage() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "behind the last gzip member stands what is neither another one nor zeros",
    )
}
