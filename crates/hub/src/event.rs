//! What happens while a model is pulled, for whoever shows it.

/// A step of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// What there is to do.
    Planned {
        /// Files of the model.
        files: usize,
        /// Their bytes together, if known.
        size: Option<u64>,
        /// Those of them that are here already.
        here: usize,
    },
    /// A file begins, or goes on.
    Started {
        /// Its name.
        file: &'a str,
        /// Its bytes, if the server tells.
        size: Option<u64>,
        /// Bytes that were here before.
        from: u64,
    },
    /// So many bytes of the file are here.
    Progress {
        /// Bytes, those that were here before included.
        received: u64,
    },
    /// Something went wrong that may pass; the next attempt follows.
    Retrying {
        /// What went wrong.
        reason: &'a str,
    },
    /// A file is here, whole and checked.
    Finished {
        /// Its name.
        file: &'a str,
        /// Its bytes.
        size: u64,
        /// Its SHA-256 in hexadecimal.
        sha256: &'a str,
        /// Whether it was compared with a SHA-256 known before.
        checked: bool,
    },
}

/// Takes note of what happens.
pub type OnEvent<'a> = dyn FnMut(Event<'_>) + 'a;
