//! Tasks and groups: what they say, read from TOML.

mod file;
mod group;
mod library;
mod prompt;

pub use file::{Data, ShotOrder, Shots as ShotSource, Task};
pub use group::{Group, Mean, Member};
pub use library::{Library, Selection, TaskName};
pub use prompt::{Rendered, Renderer};

/// The version of lm-evaluation-harness whose prompts and rules are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Harness {
    /// 0.4.9.1: a request without context begins with BOS twice where texts begin with it; a document is left out of its own shots,
    /// which may then be one too few.
    V0_4_9_1,
    /// 0.4.13.
    #[default]
    V0_4_13,
}

impl Harness {
    /// All of them, the oldest first.
    pub const ALL: [Self; 2] = [Self::V0_4_9_1, Self::V0_4_13];

    /// Its version.
    pub fn version(self) -> &'static str {
        match self {
            Self::V0_4_9_1 => "0.4.9.1",
            Self::V0_4_13 => "0.4.13",
        }
    }
}

impl std::fmt::Display for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.version())
    }
}

impl std::str::FromStr for Harness {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::version).join(" and ");
        let found = Self::ALL.into_iter().find(|harness| harness.version() == text);
        found.ok_or_else(|| format!("{text:?} is no version of the harness that is followed here; there are {known}"))
    }
}
