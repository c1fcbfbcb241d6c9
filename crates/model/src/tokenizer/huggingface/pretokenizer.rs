//! Cutting a text into words before pairs are joined, by the steps of a `tokenizer.json`.

use serde_json::Value;

use super::super::SPACE;
use super::patterns::Pattern;
use super::{TokenizerError, unusable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Spaces made visible.
    Metaspace { prepend: Prepend, split: bool },
    /// Digits apart from all else, one by one or not.
    Digits { one_by_one: bool },
    /// By a regular expression.
    Split(Pattern),
    /// Perhaps by GPT-2's expression; what comes out is taken byte by byte.
    ByteLevel { prefix_space: bool, split: bool },
}

/// Which parts get a space before them, if they do not begin with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepend {
    All,
    First,
    None,
}

/// Reads the steps of `pre_tokenizer`.
pub(super) fn steps_of(step: &Value, out: &mut Vec<Step>) -> Result<(), TokenizerError> {
    if step.is_null() {
        return Ok(());
    }
    if step["type"] == "Sequence" {
        return step["pretokenizers"].as_array().into_iter().flatten().try_for_each(|step| steps_of(step, out));
    }
    if matches!(out.last(), Some(Step::ByteLevel { .. })) {
        return Err(unusable("its pre_tokenizer goes on behind ByteLevel, which is not supported"));
    }
    // Which parts of a text are first then hangs on where their characters came from.
    if step["prepend_scheme"] == "first" && !out.is_empty() {
        return Err(unusable(
            "its pre_tokenizer of type Metaspace puts a space first behind another step, which is not supported",
        ));
    }
    let is = |key: &str| step[key].as_bool();
    let known = match step["type"].as_str() {
        Some("Metaspace") if step["replacement"] == SPACE => {
            let prepend = match (step["prepend_scheme"].as_str(), is("add_prefix_space")) {
                (Some("never"), _) | (None, Some(false)) => Some(Prepend::None),
                (Some("first"), None | Some(true)) => Some(Prepend::First),
                (Some("always") | None, None | Some(true)) => Some(Prepend::All),
                _ => None,
            };
            prepend.map(|prepend| Step::Metaspace { prepend, split: is("split").unwrap_or(true) })
        }
        Some("Digits") => Some(Step::Digits { one_by_one: is("individual_digits").unwrap_or(false) }),
        Some("ByteLevel") => Some(Step::ByteLevel {
            prefix_space: is("add_prefix_space").unwrap_or(true),
            split: is("use_regex").unwrap_or(true),
        }),
        Some("Split") if step["behavior"] == "Isolated" && step["invert"] == false => {
            step["pattern"]["Regex"].as_str().and_then(Pattern::of).map(Step::Split)
        }
        _ => None,
    };
    out.push(known.ok_or_else(|| {
        let expression =
            step["pattern"]["Regex"].as_str().map(|pattern| format!(" by {pattern:?}")).unwrap_or_default();
        unusable(format_args!("its pre_tokenizer of type {}{expression} is not supported", step["type"]))
    })?);
    Ok(())
}

/// Hands the words of `text` to `put`; `is_first` says whether it is where the whole text begins.
pub(super) fn pre_tokenize(steps: &[Step], text: &str, is_first: bool, put: &mut dyn FnMut(&str)) {
    let Some((step, rest)) = steps.split_first() else { return put(text) };
    let mut is_part_first = is_first;
    let mut go_on = |part: &str| {
        pre_tokenize(rest, part, is_part_first, put);
        is_part_first = false;
    };
    match *step {
        Step::Metaspace { prepend, split } => {
            let mut text = text.replace(' ', SPACE);
            let wants_space = prepend == Prepend::All || prepend == Prepend::First && is_first;
            if wants_space && !text.starts_with(SPACE) {
                text.insert_str(0, SPACE);
            }
            if split { split_before_spaces(&text).for_each(go_on) } else { go_on(&text) }
        }
        Step::Digits { one_by_one } => split_digits(text, one_by_one).for_each(go_on),
        Step::Split(pattern) => pattern.split(text).for_each(go_on),
        Step::ByteLevel { prefix_space, split } => {
            let spaced = (prefix_space && !text.starts_with(' ')).then(|| format!(" {text}"));
            let text = spaced.as_deref().unwrap_or(text);
            if split { Pattern::Gpt2.split(text).for_each(go_on) } else { go_on(text) }
        }
    }
}

fn split_before_spaces(text: &str) -> impl Iterator<Item = &str> {
    split_at(text, |rest| {
        let first = rest.chars().next().map_or(0, char::len_utf8);
        rest[first..].find(SPACE).map_or(rest.len(), |at| first + at)
    })
}

fn split_digits(text: &str, one_by_one: bool) -> impl Iterator<Item = &str> {
    split_at(text, move |rest| match rest.chars().next() {
        Some(first) if first.is_numeric() && one_by_one => first.len_utf8(),
        first => {
            let is_digit = first.is_some_and(char::is_numeric);
            rest.find(|c: char| c.is_numeric() != is_digit).unwrap_or(rest.len())
        }
    })
}

/// The parts of `text`; `length` says how much of the rest the next one is.
fn split_at(text: &str, length: impl Fn(&str) -> usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (part, behind) = rest.split_at(length(rest));
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}
