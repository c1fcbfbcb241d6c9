//! Names of files that together are one model: `STEM-00001-of-00003.EXTENSION`.

use std::path::{Path, PathBuf};

/// The name of one part of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartName<'a> {
    /// What stands before the number, the same for all parts.
    pub stem: &'a str,
    /// From 1.
    pub number: usize,
    /// Parts in all.
    pub count: usize,
    /// What stands behind the last dot.
    pub extension: &'a str,
}

impl<'a> PartName<'a> {
    /// Takes a file's name apart; `None` if it is not that of a part.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, extension) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let number_of = |text: &str| {
            let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let (number, count) = (number_of(number)?, number_of(count)?);
        (1..=count).contains(&number).then_some(Self { stem, number, count, extension })
    }

    /// The name of the part `number`.
    pub fn name(&self, number: usize) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.stem, self.count, self.extension)
    }
}

/// The files of which the one at `path` is a part, in their order, or the first that is missing; `None` if it has no such name.
pub(crate) fn beside(path: &Path) -> Option<Result<Vec<PathBuf>, PathBuf>> {
    let part = PartName::parse(path.file_name()?.to_str()?)?;
    let existing = |number| {
        let file = path.with_file_name(part.name(number));
        if file.exists() { Ok(file) } else { Err(file) }
    };
    Some((1..=part.count).map(existing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_each_other_by_their_names() {
        let part = PartName::parse("a-7b-Q4_0-00002-of-00003.gguf").unwrap();
        assert_eq!((part.stem, part.number, part.count, part.extension), ("a-7b-Q4_0", 2, 3, "gguf"));
        assert_eq!(part.name(1), "a-7b-Q4_0-00001-of-00003.gguf");
        for name in ["a.gguf", "a-00001-of-00002", "a-1-of-2.gguf", "a-00003-of-00002.gguf", "a-00000-of-00002.gguf"] {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
    }
}
