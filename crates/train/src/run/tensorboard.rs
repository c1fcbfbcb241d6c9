//! TensorBoard's event files: protocol-buffer messages in TFRecord frames.
//!
//! Frame: length as `u64`, its masked CRC-32C, the message, its masked CRC-32C; all little-endian. Field numbers are those
//! of TensorFlow's `event.proto` and `summary.proto`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.SessionStatus.START`: TensorBoard forgets what earlier files say of later steps.
const SESSION_START: i32 = 1;

/// Writes the curves of a run for TensorBoard.
pub(super) struct EventFile {
    file: File,
}

impl EventFile {
    /// Begins a new file in `folder` for a run that goes on from `step`.
    pub fn create(folder: &Path, step: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let now = wall_time();
        // Runs may begin within the same second: the process tells them apart.
        let name = format!("events.out.tfevents.{:010}.openelm.{}", now as u64, std::process::id());
        let file = File::options().create(true).append(true).open(folder.join(name))?;
        let mut events = Self { file };
        events.add(Event { wall_time: now, file_version: Some("brain.Event:2".to_owned()), ..Event::default() })?;
        let session_log = Some(SessionLog { status: SESSION_START });
        events.add(Event { wall_time: now, step: step as i64 + 1, session_log, ..Event::default() })?;
        Ok(events)
    }

    /// Adds a point to each of the curves named.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let value = values.iter().map(|&(tag, value)| Value { tag: tag.to_owned(), simple_value: value as f32 });
        let summary = Some(Summary { value: value.collect() });
        self.add(Event { wall_time: wall_time(), step: step as i64, summary, ..Event::default() })
    }

    fn add(&mut self, event: Event) -> io::Result<()> {
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// `message` in its frame.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(message);
    bytes.extend(masked_crc(message).to_le_bytes());
    bytes
}

/// TFRecord's checksum: turned and shifted, so that checksums of checksums do not cancel.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_tensorflows() {
        // The first record of every event file that TensorFlow writes, with its wall time set to 1.
        let version = Event { wall_time: 1.0, file_version: Some("brain.Event:2".to_owned()), ..Event::default() };
        let bytes = record(&version.encode_to_vec());
        assert_eq!(&bytes[..8], &24u64.to_le_bytes());
        // The masked checksum of the length 24 is the same in every such file.
        assert_eq!(&bytes[8..12], &[0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(&bytes[12..22], b"\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x1a");
    }
}
