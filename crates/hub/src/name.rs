//! What models are called: repositories of the Hugging Face hub, and the files that Apple published with CoreNet.

use std::fmt;

use crate::HubError;
use crate::corenet::CoreNetModel;

/// A model that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A repository of the hub.
    Repository(Repository),
    /// Files of Apple's, in CoreNet's or MLX's layout.
    CoreNet(CoreNetModel),
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl Repository {
    /// The data set `owner/name` of the hub, as its branch of Parquet files has it.
    pub(crate) fn of_data_set(name: &str) -> Result<Self, HubError> {
        let parts: Vec<&str> = name.split('/').collect();
        if !(1..=2).contains(&parts.len()) || !parts.iter().all(|part| is_sound(part)) {
            return Err(wrong(name));
        }
        Ok(Self { id: format!("datasets/{name}"), revision: PARQUET.to_owned() })
    }

    /// Whether it is one of data, not of a model.
    pub(crate) fn is_data_set(&self) -> bool {
        self.id.starts_with("datasets/")
    }
}

/// The branch on which the hub keeps every data set as Parquet, at `config/split/0000.parquet` and so on.
const PARQUET: &str = "refs/convert/parquet";

/// OpenELM's sizes, as the hub spells them, in lower case and with a dot too.
const SIZES: [(&str, &str); 4] = [("270M", "270m"), ("450M", "450m"), ("1_1B", "1.1b"), ("3B", "3b")];

impl Name {
    /// Reads a name: `apple/OpenELM-270M`, `openelm-270m-instruct`, `owner/name@revision`, `corenet/270M`. Short names may be
    /// in any case.
    ///
    /// # Errors
    /// [`HubError::Name`] if it is none.
    ///
    /// ```
    /// use openelm_hub::Name;
    ///
    /// assert_eq!(Name::parse("openelm-1.1b-instruct").unwrap().to_string(), "apple/OpenELM-1_1B-Instruct");
    /// assert_eq!(Name::parse("corenet/mlx/3b-4bit").unwrap().to_string(), "corenet/mlx/3B-4bit");
    /// assert!(Name::parse("openelm-7b").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, HubError> {
        if let Some(rest) = text.strip_prefix("corenet/") {
            return CoreNetModel::parse(rest).map(Name::CoreNet).ok_or_else(|| wrong(text));
        }
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let id = short_name(name).unwrap_or_else(|| name.to_owned());
        let parts: Vec<&str> = id.split('/').collect();
        let sound = parts.len() == 2 && parts.iter().all(|part| is_sound(part));
        if !sound || !revision.split('/').all(is_sound) {
            return Err(wrong(text));
        }
        Ok(Name::Repository(Repository { id, revision: revision.to_owned() }))
    }

    /// Names with a line on each, for a user who asks what there is. `SIZE` is one of 270M, 450M, 1.1B and 3B.
    pub fn list() -> Vec<(String, String)> {
        let mut list = Vec::new();
        for (size, short) in SIZES {
            for (suffix, short_suffix, what) in
                [("", "", "pretrained"), ("-Instruct", "-instruct", "tuned to instructions")]
            {
                list.push((
                    format!("apple/OpenELM-{size}{suffix}"),
                    format!("{what}; short: openelm-{short}{short_suffix}"),
                ));
            }
        }
        let more = [
            ("OWNER/NAME[@REVISION]", "any repository of the Hugging Face hub; a branch, a tag or a commit"),
            ("corenet/SIZE", "CoreNet's file of the pretrained weights, the mean of the last five checkpoints"),
            ("corenet/SIZE/iter_N", "one checkpoint: N is 49999, 99999, … 299999, 329999, 334999, … 349999"),
            ("corenet/SIZE/training_iter_N", "the same with the state of the optimiser, to train on"),
            ("corenet/SIZE/training_last", "the state at the end of training"),
            ("corenet/mlx/SIZE[-4bit]", "CoreNet's conversion to MLX in 16 or 4 bits"),
            ("corenet/lora/SIZE", "CoreNet's LoRA adapter for common sense questions"),
            ("corenet/dora/SIZE", "CoreNet's DoRA adapter for them"),
        ];
        list.extend(more.map(|(name, what)| (name.to_owned(), what.to_owned())));
        list
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Repository(repository) => repository.fmt(f),
            Name::CoreNet(model) => model.fmt(f),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

fn wrong(name: &str) -> HubError {
    HubError::Name { name: name.to_owned() }
}

/// The repository that a name like `openelm-270m-instruct` is short for.
fn short_name(name: &str) -> Option<String> {
    let lower = name.to_lowercase().replace("1_1b", "1.1b");
    let rest = lower.strip_prefix("openelm-")?;
    let (size, suffix) = rest.strip_suffix("-instruct").map_or((rest, ""), |size| (size, "-Instruct"));
    let (size, _) = SIZES.into_iter().find(|(_, short)| *short == size)?;
    Some(format!("apple/OpenELM-{size}{suffix}"))
}

/// Whether `part` can be one step of a path and of an address: letters, digits, `.`, `_` and `-`, with no dot in front.
pub(crate) fn is_sound(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stand_for_apples_repositories() {
        for (short, long) in [
            ("openelm-270m", "apple/OpenELM-270M"),
            ("OpenELM-450M-Instruct", "apple/OpenELM-450M-Instruct"),
            ("openelm-1_1b", "apple/OpenELM-1_1B"),
            ("openelm-1.1b", "apple/OpenELM-1_1B"),
            ("openelm-3b@refs/pr/4", "apple/OpenELM-3B@refs/pr/4"),
            ("someone/else@v1.0", "someone/else@v1.0"),
            ("corenet/1_1b", "corenet/1.1B"),
            ("corenet/270m/iter_49999", "corenet/270M/iter_49999"),
            ("corenet/3B/training_last", "corenet/3B/training_last"),
            ("corenet/dora/450M", "corenet/dora/450M"),
        ] {
            assert_eq!(Name::parse(short).unwrap().to_string(), long);
        }
    }

    #[test]
    fn what_could_leave_its_place_is_no_name() {
        for name in [
            "",
            "model",
            "openelm-9b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b@../../x",
            "a/b@",
            "/a",
            "a/b?c",
            "a b/c",
            "corenet/9B",
            "corenet/270M/../..",
            "corenet/270M/iter_x",
            "corenet/270M/iter_",
            "corenet/mlx/270M-3bit",
        ] {
            assert!(Name::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn every_listed_name_is_one() {
        for (name, _) in Name::list() {
            for size in ["270M", "1.1B"] {
                let name = name.replace("SIZE", size).replace("iter_N", "iter_49999").replace("[-4bit]", "-4bit");
                let name = name.replace("OWNER/NAME[@REVISION]", "owner/name@main");
                assert!(Name::parse(&name).is_ok(), "{name}");
            }
        }
    }
}
