//! The peer: llama.cpp's `llama-bench`, and `llama-batched-bench` beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::BenchError;

/// What the peer is to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerTest {
    /// A prompt of so many tokens, with the logits of the last one.
    Prefill {
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// Token after token.
    Decode {
        /// Tokens to generate.
        tokens: usize,
        /// Tokens in the cache before.
        cached: usize,
    },
    /// Token after token of several sequences together.
    Batch {
        /// How many.
        sequences: usize,
        /// Tokens to generate in each.
        tokens: usize,
        /// Tokens of each in the cache before.
        cached: usize,
    },
}

impl PeerTest {
    fn arguments(self) -> Vec<String> {
        let (prompt, generated, cached) = match self {
            PeerTest::Prefill { tokens } => (tokens, 0, 0),
            PeerTest::Decode { tokens, cached } => (0, tokens, cached),
            PeerTest::Batch { sequences, tokens, cached } => {
                let context = sequences * (tokens + cached);
                let sizes = [("-npl", sequences), ("-ntg", tokens), ("-npp", cached), ("-c", context)];
                let sizes = sizes.into_iter().flat_map(|(name, size)| [name.to_owned(), size.to_string()]);
                return sizes.chain(["--output-format".to_owned(), "jsonl".to_owned()]).collect();
            }
        };
        let sizes = [("-p", prompt), ("-n", generated), ("-d", cached)].into_iter();
        let sizes = sizes.filter(|&(name, size)| name != "-d" || size > 0);
        let sizes = sizes.flat_map(|(name, size)| [name.to_owned(), size.to_string()]);
        sizes.chain(["-r", "1", "-o", "json"].map(str::to_owned)).collect()
    }

    /// The rate in what the program printed.
    fn rate(self, printed: &[u8]) -> Option<f64> {
        let rate = match self {
            PeerTest::Batch { .. } => {
                let mut lines = std::str::from_utf8(printed).ok()?.lines();
                let line = lines.find_map(|line| serde_json::from_str::<Value>(line).ok())?;
                line.get("speed_tg")?.as_f64()?
            }
            _ => serde_json::from_slice::<Value>(printed).ok()?.get(0)?.get("avg_ts")?.as_f64()?,
        };
        Some(rate).filter(|rate| rate.is_finite() && *rate > 0.0)
    }
}

/// A `llama-bench` program.
#[derive(Debug, Clone)]
pub struct Peer {
    program: PathBuf,
}

impl Peer {
    /// The program at `path`.
    ///
    /// # Errors
    /// If there is no file.
    pub fn new(path: &Path) -> Result<Self, BenchError> {
        let peer = Self { program: path.to_owned() };
        if path.is_file() {
            Ok(peer)
        } else {
            Err(peer.failed("there is no such program; give the path of llama-bench"))
        }
    }

    /// Runs `test` once on the model in `file`, after a warm-up of its own, and gives tokens per second.
    ///
    /// # Errors
    /// If the program cannot be run, fails, or prints no rate.
    pub fn rate(&self, file: &Path, threads: usize, test: PeerTest) -> Result<f64, BenchError> {
        let program = match test {
            PeerTest::Batch { .. } => self.program.with_file_name("llama-batched-bench"),
            _ => self.program.clone(),
        };
        let mut command = Command::new(program);
        command.arg("-m").arg(file).args(["-t", &threads.to_string()]).args(test.arguments());
        let output = command.output().map_err(|e| self.failed(&format!("it cannot be run: {e}")))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
        if !output.status.success() {
            return Err(self.failed(&format!("it ended with {}: {last}", output.status)));
        }
        test.rate(&output.stdout).ok_or_else(|| self.failed(&format!("it printed no rate as JSON: {last}")))
    }

    fn failed(&self, reason: &str) -> BenchError {
        BenchError::Peer { program: self.program.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_in_what_the_program_prints() {
        let printed =
            br#"[{"n_prompt": 512, "n_gen": 0, "avg_ns": 1500000000, "avg_ts": 341.5, "samples_ts": [341.5]}]"#;
        let rate = |printed| PeerTest::Prefill { tokens: 512 }.rate(printed);
        assert_eq!(rate(printed), Some(341.5));
        let line = br#"main: ready
{"n_kv_max": 640, "pp": 16, "tg": 64, "pl": 8, "speed_pp": 500.0, "t_tg": 1.0, "speed_tg": 512.5}"#;
        assert_eq!(PeerTest::Batch { sequences: 8, tokens: 64, cached: 16 }.rate(line), Some(512.5));
        for nothing in [&b""[..], b"[]", b"[{}]", b"[{\"avg_ts\": 0}]", b"[{\"avg_ts\": \"fast\"}]", b"{\"avg_ts\": 1}"]
        {
            assert_eq!(rate(nothing), None, "{}", String::from_utf8_lossy(nothing));
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_program_is_asked_and_its_failure_reported() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("llama-bench");
        let script = |text: &str| {
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Peer::new(&path).unwrap()
        };
        let asked = folder.path().join("asked");
        let rate = |peer: Peer, test| peer.rate(Path::new("m.gguf"), 2, test);
        let echo = format!("echo \"$@\" >> {}; echo '[{{\"avg_ts\": 7.5}}]'", asked.display());
        assert_eq!(rate(script(&echo), PeerTest::Prefill { tokens: 32 }).unwrap(), 7.5);
        assert_eq!(rate(script(&echo), PeerTest::Decode { tokens: 64, cached: 0 }).unwrap(), 7.5);
        assert_eq!(rate(script(&echo), PeerTest::Decode { tokens: 64, cached: 100 }).unwrap(), 7.5);
        let lines = std::fs::read_to_string(asked).unwrap();
        let expected = ["-p 32 -n 0", "-p 0 -n 64", "-p 0 -n 64 -d 100"]
            .map(|test| format!("-m m.gguf -t 2 {test} -r 1 -o json\n"));
        assert_eq!(lines, expected.concat());

        let failing = rate(script("echo 'no such model' >&2; exit 3"), PeerTest::Prefill { tokens: 1 });
        let message = failing.unwrap_err().to_string();
        assert!(message.contains("llama-bench") && message.contains("no such model"), "{message}");
        assert!(rate(script("echo hello"), PeerTest::Prefill { tokens: 1 }).is_err());
        assert!(Peer::new(&folder.path().join("nowhere")).unwrap_err().to_string().contains("nowhere"));
    }
}
