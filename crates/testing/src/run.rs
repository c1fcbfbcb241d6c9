//! A small training run: some books, and a recipe with which a tiny model learns them.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::golden;

/// A corpus and a recipe, in a folder of their own for as long as this lives.
pub struct SmallRun {
    folder: TempDir,
}

impl SmallRun {
    /// `books` books, `book0.txt` and so on, of `days` one-sentence documents each, and one more that is held out for validation.
    /// `rest` is the recipe's `[train]`, `[schedule]` and what else it shall say.
    ///
    /// # Panics
    /// If the files cannot be written.
    pub fn new(books: usize, days: usize, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).unwrap_or_else(|e| panic!("{name}: {e}"));
        };
        for book in 0..=books {
            let name = if book < books { format!("book{book}.txt") } else { "held-out.txt".to_owned() };
            let days =
                (0..days).map(|day| format!("In book {book} the fox met {} geese on day {day}.\n\n", day * 7 % 11));
            write(&name, days.collect());
        }
        let (root, tokenizer) = (folder.path().display(), golden("tokenizer_small/tokenizer.model"));
        let recipe = format!(
            r#"
output = "{root}/out"
model = {{ layers = 2, dim = 64, head_dim = 16, gqa_groups = 2, ffn_divisor = 16 }}
tokenizer = {{ path = "{}" }}
data = {{ sources = [{{ path = "{root}/book*.txt" }}], shuffle_buffer = 8 }}
validation = {{ sources = [{{ path = "{root}/held-out.txt" }}] }}
{rest}
"#,
            tokenizer.display()
        );
        write("recipe.toml", recipe);
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The recipe; its output is the folder `out`.
    pub fn recipe(&self) -> PathBuf {
        self.folder().join("recipe.toml")
    }

    /// What is called `name` in the output folder.
    pub fn out(&self, name: &str) -> PathBuf {
        self.folder().join("out").join(name)
    }
}
