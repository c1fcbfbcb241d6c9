//! Which files of a repository make the model.

use std::collections::BTreeSet;

use glob::Pattern;
use openelm_formats::PartName;

use crate::HubError;

/// What a model may be accompanied by: card and licence; configuration, tokenizer and template. Never code.
const CARDS: [&str; 3] = ["README*", "LICENSE*", "NOTICE*"];
const CONFIGURATION: [&str; 5] = ["*.json", "*.yaml", "*.yml", "*.jinja", "tokenizer*.model"];

/// Weights, best first: a repository often has the same ones in several formats.
const WEIGHTS: [&str; 3] = ["*.safetensors", "*.gguf", "*.pt"];

/// The files to pull: the weights in the first format there is, or those that `patterns` name, and what accompanies them.
///
/// # Errors
/// If there are no weights, if there are several models to choose from, or if a pattern matches nothing.
pub(crate) fn select(name: &str, files: &[String], patterns: &[Pattern]) -> Result<Vec<String>, HubError> {
    let of_kind = |kinds: &[&str]| -> Vec<String> {
        let kinds: Vec<Pattern> = kinds.iter().filter_map(|kind| Pattern::new(kind).ok()).collect();
        files.iter().filter(|file| kinds.iter().any(|kind| kind.matches(file))).cloned().collect()
    };
    let mut chosen = Vec::new();
    for pattern in patterns {
        let found = files.iter().filter(|file| pattern.matches(file)).cloned().collect::<Vec<_>>();
        if found.is_empty() {
            let (pattern, files) = (pattern.to_string(), files.join(", "));
            return Err(HubError::NoSuchFile { name: name.to_owned(), pattern, files });
        }
        chosen.extend(found);
    }
    // One part is none.
    let parts = chosen.iter().filter_map(|file| PartName::parse(file));
    let others: Vec<String> = parts.flat_map(|part| (1..=part.count).map(move |n| part.name(n))).collect();
    chosen.extend(others.into_iter().filter(|other| files.contains(other)));
    if patterns.is_empty() {
        let kind = WEIGHTS.into_iter().find(|kind| !of_kind(&[kind]).is_empty());
        let kind = kind.ok_or_else(|| HubError::NoWeights { name: name.to_owned() })?;
        chosen = of_kind(&[kind]);
        // Safetensors may be shards of one model; of the others only what is numbered is.
        let model_of = |file: &String| PartName::parse(file).map_or(file.clone(), |part| part.name(1));
        if kind != WEIGHTS[0] && chosen.iter().map(model_of).collect::<BTreeSet<_>>().len() > 1 {
            return Err(HubError::Choice { name: name.to_owned(), files: chosen.join(", ") });
        }
    }
    // A GGUF file says everything itself; a configuration beside it is that of another format.
    if !chosen.iter().all(|file| file.ends_with(".gguf")) {
        chosen.extend(of_kind(&CONFIGURATION));
    }
    chosen.extend(of_kind(&CARDS));
    chosen.sort();
    chosen.dedup();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], patterns: &[&str]) -> Result<Vec<String>, HubError> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let patterns: Vec<Pattern> = patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
        select("a/b", &files, &patterns)
    }

    #[test]
    fn code_and_the_weights_of_other_tools_stay_away() {
        let files = [
            ".gitattributes",
            "README.md",
            "config.json",
            "modeling_openelm.py",
            "model.safetensors",
            "pytorch_model.bin",
            "model.gguf",
            "tokenizer.model",
        ];
        assert_eq!(chosen(&files, &[]).unwrap(), ["README.md", "config.json", "model.safetensors", "tokenizer.model"]);
    }

    #[test]
    fn one_of_several_models_is_chosen_by_name() {
        let files = ["a-Q4_0.gguf", "a-Q8_0.gguf", "config.json", "README.md"];
        assert!(matches!(chosen(&files, &[]), Err(HubError::Choice { .. })));
        assert_eq!(chosen(&files, &["*Q8_0*"]).unwrap(), ["README.md", "a-Q8_0.gguf"]);
        assert!(matches!(chosen(&files, &["*Q2*"]), Err(HubError::NoSuchFile { .. })));
        let parts = ["a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf"];
        assert_eq!(chosen(&parts, &[]).unwrap(), parts, "two parts are one model");
        let several = [&parts[..], &["a-Q4_0.gguf"]].concat();
        assert!(matches!(chosen(&several, &[]), Err(HubError::Choice { .. })));
        assert_eq!(chosen(&several, &["*00002*"]).unwrap(), parts, "one part brings the other");
        assert!(matches!(chosen(&["README.md"], &[]), Err(HubError::NoWeights { .. })));
    }
}
