//! How much memory this process takes, as Linux counts it.

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// The most there was at a time since [`Resident::forget_peak`], pages of mapped files included.
    pub peak: u64,
    /// What is there now and belongs to this process alone: without the pages of files, which the system may take back.
    pub private: u64,
}

impl Resident {
    /// Asks the system; `None` where it does not say.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(1024 * value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
        };
        Some(Self { peak: field("VmHWM")?, private: field("RssAnon")? })
    }

    /// Makes the peak begin anew; whether the system can do that.
    pub fn forget_peak() -> bool {
        // proc(5): 5 resets the peak resident set size.
        std::fs::write("/proc/self/clear_refs", "5").is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_account_is_understood() {
        let status = "Name:\topenelm\nVmPeak:\t  900 kB\nVmHWM:\t  600 kB\nVmRSS:\t  500 kB\nRssAnon:\t  100 kB\n\
                      RssFile:\t  400 kB\n";
        assert_eq!(Resident::parse(status), Some(Resident { peak: 600 << 10, private: 100 << 10 }));
        assert_eq!(Resident::parse("Name:\topenelm\n"), None);
        assert_eq!(Resident::parse("VmHWM:\t many kB\nRssAnon:\t 1 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_was_touched_counts() {
        const SIZE: usize = 64 << 20;
        let before = Resident::now().unwrap();
        let touched = std::hint::black_box(vec![1u8; SIZE]);
        let with = Resident::now().unwrap();
        assert!(with.private >= before.private + SIZE as u64 / 2, "{before:?} {with:?}");
        assert!(with.peak >= with.private);
        drop(touched);
        if Resident::forget_peak() {
            assert!(Resident::now().unwrap().peak < with.peak);
        }
    }
}
