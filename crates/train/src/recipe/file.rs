//! A recipe as a file, and single values changed on the command line.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Recipe;

/// A recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The system cannot read the file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A `key=value` that cannot be applied.
    #[error("--set {set}: {reason}")]
    Set {
        /// What was given.
        set: String,
        /// What is wrong.
        reason: String,
    },
    /// A number out of range.
    #[error("{key} is {value}; {expected}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Recipe {
    /// Reads the recipe at `path` and applies `sets`, each `dotted.key=value`.
    ///
    /// # Errors
    /// If it is not TOML, a key is unknown or missing, or a value is out of range.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let recipe: Self = read(path, sets)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe in `text`, which stands in `path`; its numbers are not checked.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, RecipeError> {
        toml::from_str(text).map_err(wrong(path))
    }

    /// The recipe as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        to_toml(self)
    }
}

/// What the file at `path` says, with `sets` applied, each `dotted.key=value`.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<T, RecipeError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| RecipeError::Io { path: path.to_owned(), source })?;
    let mut recipe = toml::from_str(&text).map_err(wrong(path))?;
    if !sets.is_empty() {
        // Once more, with the changes: the messages of the text alone have lines.
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong(path))?;
        for set in sets {
            apply(&mut table, set).map_err(|reason| RecipeError::Set { set: set.clone(), reason })?;
            let changed = toml::Value::Table(table.clone()).try_into();
            recipe = changed.map_err(|e| RecipeError::Set { set: set.clone(), reason: e.message().to_owned() })?;
        }
    }
    Ok(recipe)
}

/// `recipe` with `sets` applied, each `dotted.key=value`.
pub(crate) fn changed<T: Serialize + DeserializeOwned>(mut recipe: T, sets: &[String]) -> Result<T, RecipeError> {
    for set in sets {
        let refused = |reason| RecipeError::Set { set: set.clone(), reason };
        let mut table = toml::Table::try_from(&recipe).map_err(|e| refused(e.to_string()))?;
        apply(&mut table, set).map_err(refused)?;
        recipe = toml::Value::Table(table).try_into().map_err(|e: toml::de::Error| refused(e.message().to_owned()))?;
    }
    Ok(recipe)
}

/// `recipe` as TOML.
pub(crate) fn to_toml(recipe: &impl Serialize) -> String {
    // Serialisation of these plain structs cannot fail; an empty text would be noticed by its reader.
    toml::to_string_pretty(recipe).unwrap_or_default()
}

fn wrong(path: &Path) -> impl Fn(toml::de::Error) -> RecipeError {
    move |e| RecipeError::Toml { path: path.to_owned(), reason: e.to_string() }
}

/// Puts the value of `dotted.key=value` into `table`: as TOML where it is, as a text otherwise.
fn apply(table: &mut toml::Table, set: &str) -> Result<(), String> {
    let (key, value) = set.split_once('=').ok_or("expected key=value, for example train.steps=100")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let value = parsed.ok().and_then(|mut t| t.remove("value")).unwrap_or_else(|| toml::Value::String(value.into()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty()).ok_or("the key is empty")?;
    let mut target = table;
    for part in path {
        let entry = target.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        target = entry.as_table_mut().ok_or_else(|| format!("{part} is not a table"))?;
    }
    target.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::recipe) const TEXT: &str = r#"
output = "runs/x"
[model]
layers = 2
dim = 64
head_dim = 16
gqa_groups = 2
[tokenizer]
path = "tokenizer.model"
[data]
sources = [{ path = "books/*.md" }]
[train]
sequence_length = 32
batch_size = 4
steps = 100
[schedule]
max_lr = 1e-3
warmup_steps = 10
"#;

    pub(in crate::recipe) fn load(text: &str, sets: &[&str]) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::load(&path, &sets).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_corenets_and_survive_a_round_trip() {
        let recipe = load(TEXT, &[]).unwrap();
        assert_eq!(recipe.optimizer.weight_decay, 0.1);
        assert_eq!(recipe.schedule().min_lr, 1e-4);
        assert_eq!(load(&recipe.to_toml(), &[]).unwrap(), recipe);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let recipe = load(TEXT, &[]).unwrap();
        assert_eq!(load(&format!("\u{feff}{TEXT}"), &["train.steps=100"]).unwrap(), recipe);
    }

    #[test]
    fn validation_is_one_corpus_or_several_with_names() {
        let one = format!("{TEXT}[validation]\nsources = [{{ path = \"a.md\" }}]\n");
        let recipe = load(&one, &[]).unwrap();
        assert_eq!(recipe.validation[0].name, "validation");
        assert_eq!(load(&recipe.to_toml(), &[]).unwrap(), recipe);
        let named = |name: &str| format!("[[validation]]\nname = \"{name}\"\nsources = [{{ path = \"{name}.md\" }}]\n");
        let two = [TEXT, &named("web"), &named("books")].concat();
        let names: Vec<String> = load(&two, &[]).unwrap().validation.into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["web", "books"]);
        let twice = load(&[TEXT, &named("web"), &named("web")].concat(), &[]).unwrap_err();
        assert!(twice.contains("each corpus needs a name of its own"), "{twice}");
        let unknown = load(&one.replace("sources", "sauces"), &[]).unwrap_err();
        assert!(unknown.contains("unknown field `sauces`"), "{unknown}");
    }

    #[test]
    fn single_values_can_be_changed() {
        let sets = ["train.steps=7", "schedule.warmup_steps=2", "output=elsewhere", "optimizer.clip=0.5"];
        let recipe = load(TEXT, &sets).unwrap();
        assert_eq!((recipe.train.steps, recipe.optimizer.clip), (7, 0.5));
        assert_eq!(recipe.output, Path::new("elsewhere"));
    }

    #[test]
    fn unknown_keys_and_values_of_the_wrong_kind_are_named() {
        let says = |text: &str, sets: &[&str], expected: &str| {
            let message = load(text, sets).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        says(&TEXT.replace("steps = 100", "steps = 100\nstep = 5"), &[], "unknown field `step`");
        says(&TEXT.replace("steps = 100", "steps = 100\nstep = 5"), &[], "recipe.toml");
        says(TEXT, &["train.stepz=5"], "--set train.stepz=5: unknown field `stepz`");
        says(TEXT, &["train.steps"], "expected key=value");
        says(TEXT, &["train.steps=many"], "invalid type");
        says(&TEXT.replace("[schedule]", "[schedule"), &[], "line");
    }
}
