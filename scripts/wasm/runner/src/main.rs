//! Prints the report of the model in a folder.

use std::path::PathBuf;
use std::{env, error, fs};

use openelm_runner::{Files, report};

fn main() -> Result<(), Box<dyn error::Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("give the folder of a model")?);
    let file = |name| fs::read(folder.join(name));
    let files = Files {
        config: file("config.json")?,
        weights: file("model.safetensors")?,
        tokenizer: file("tokenizer.model")?,
    };
    print!("{}", report(&files)?);
    Ok(())
}
