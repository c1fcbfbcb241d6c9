//! Running the command.

use std::path::Path;
use std::process::{Command, Output};

pub fn openelm(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.args(arguments);
    command
}

#[track_caller]
pub fn output(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = openelm(arguments).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs what must fail: with one sentence on stderr that has all `parts`.
#[track_caller]
pub fn refused(arguments: &[&str], parts: &[&str]) {
    let Output { status, stdout, stderr } = openelm(arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    assert!(stdout.is_empty());
    assert!(message.starts_with("error: ") && message.trim_end().lines().count() == 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
