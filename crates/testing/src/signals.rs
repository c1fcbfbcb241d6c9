//! Signals that tests send.

use std::fs;

/// Whether a test of Ctrl-C has to be skipped, and says so: what was started with SIGINT ignored, as a shell does for what it
/// runs in the background, passes that on, and the command leaves a signal ignored that it finds so.
pub fn interrupts_are_ignored() -> bool {
    const SIGINT: u32 = 2;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let ignored = mask >> (SIGINT - 1) & 1 == 1;
    if ignored {
        eprintln!("skipped: the tests were started with SIGINT ignored");
    }
    ignored
}
