//! What a limit of the address space (`ulimit -v`) leaves: beyond it memory cannot be had, however much there is.

/// Bytes that this process can still map; `None` without a limit, or where the system does not say.
pub(crate) fn left() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    left_of(&read("/proc/self/limits")?, &read("/proc/self/status")?)
}

/// The same by what Linux says in these two files.
fn left_of(limits: &str, status: &str) -> Option<u64> {
    let number = |text: &str, key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
    };
    let limit = number(limits, "Max address space")?;
    let used = number(status, "VmSize:")?.saturating_mul(1024);
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_from_none() {
        let status = "Name:\topenelm\nVmPeak:\t  400 kB\nVmSize:\t  300 kB\nVmLck:\t 0 kB\n";
        let limits = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax address space         {soft}  unlimited  bytes\n")
        };
        assert_eq!(left_of(&limits("1048576"), status), Some(1_048_576 - 300 * 1024));
        assert_eq!(left_of(&limits("1000"), status), Some(0));
        assert_eq!(left_of(&limits("unlimited"), status), None);
    }
}
