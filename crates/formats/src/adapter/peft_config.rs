//! `adapter_config.json`: what PEFT says of kinds of modules, for each module, and back.

use std::collections::{BTreeMap, BTreeSet};

use openelm_model::{Adapter, AdapterModule, AdapterOptions};
use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::cover::{cover, kind};
use super::parts::{Leaf, Settings};
use crate::FormatError;

/// The version whose keys are written.
const VERSION: &str = "0.21.2";

/// Keys that say how an adapter was made or is run, not what it does to the model.
const INERT: [&str; 18] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "velora_config",
];

/// Keys that change what an adapter does to the model unless they are off.
const MUST_BE_OFF: [&str; 14] = [
    "alora_invocation_tokens",
    "arrow_config",
    "bias",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// Initialisations that leave the base model and the arithmetic alone. PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ train the adapter
/// on a changed base model.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// A regular expression may take this many bytes: those of configurations need a few thousand.
const REGEX_BYTES: usize = 1 << 17;

#[derive(Deserialize)]
struct Keys {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    base_model_name_or_path: Option<String>,
    target_modules: Option<Targeted>,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
    init_lora_weights: Option<Value>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Targeted {
    Names(Vec<String>),
    Pattern(String),
}

/// A configuration, worked out for the modules of a model.
pub(super) struct Config {
    pub options: AdapterOptions,
    /// The modules that it adapts, by their names in the Hugging Face model.
    pub settings: BTreeMap<String, Settings>,
    pub notes: Vec<String>,
}

impl Config {
    /// Works the configuration out for the modules of these `names`.
    pub fn parse(text: &[u8], names: &[String]) -> Result<Self, String> {
        let keys: Keys = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if keys.peft_type != "LORA" {
            return Err(format!("peft_type is {:?}; only \"LORA\" can be read", keys.peft_type));
        }
        let notes = check_others(&keys.others)?;
        match &keys.init_lora_weights {
            None | Some(Value::Null | Value::Bool(_)) => (),
            Some(Value::String(start)) if PLAIN_STARTS.contains(&start.as_str()) => (),
            Some(other) => {
                return Err(format!(
                    "init_lora_weights is {other}, which may change the base model; let PEFT convert the adapter to a plain \
                     LoRA (path_initial_model_for_weight_conversion) and read that"
                ));
            }
        }
        let ranks = by_pattern(keys.rank_pattern, names, "rank_pattern", |value| {
            value.as_u64().and_then(|rank| usize::try_from(rank).ok())
        })?;
        let alphas = by_pattern(keys.alpha_pattern, names, "alpha_pattern", Value::as_f64)?;
        let mut settings = BTreeMap::new();
        for (name, adapted) in names.iter().zip(adapted(keys.target_modules, names)?) {
            let rank = ranks.get(name).copied().unwrap_or(keys.r);
            let alpha = alphas.get(name).copied().unwrap_or(keys.lora_alpha);
            if rank == 0 {
                return Err(format!("the rank of {name} is 0; it must be at least 1"));
            }
            if adapted {
                settings.insert(name.clone(), Settings { rank, alpha, dora: keys.use_dora });
            }
        }
        let options = AdapterOptions {
            dropout: keys.lora_dropout,
            rs_lora: keys.use_rslora,
            base_model: keys.base_model_name_or_path,
        };
        Ok(Self { options, settings, notes })
    }
}

/// Refuses keys that change the arithmetic, and notes those that are not known and switch something on.
fn check_others(others: &Map<String, Value>) -> Result<Vec<String>, String> {
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    let mut notes = Vec::new();
    for (key, value) in others.iter().filter(|(_, value)| !is_off(value)) {
        if MUST_BE_OFF.contains(&key.as_str()) {
            return Err(format!("{key} is {value}; only adapters without it can be read"));
        }
        if !INERT.contains(&key.as_str()) {
            notes.push(format!("adapter_config.json has {key} = {value}, which is not known and was passed over"));
        }
    }
    Ok(notes)
}

/// Which of the modules of these `names` are adapted: all, or those of the names or the regular expression given.
fn adapted(targeted: Option<Targeted>, names: &[String]) -> Result<Vec<bool>, String> {
    match targeted {
        None => Ok(vec![true; names.len()]),
        Some(Targeted::Pattern(pattern)) => {
            let regex = regex(&format!("^(?:{pattern})$"), "target_modules")?;
            Ok(names.iter().map(|name| regex.is_match(name)).collect())
        }
        Some(Targeted::Names(given)) => {
            let means = |given: &str, name: &str| {
                name.strip_suffix(given).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            };
            if let Some(stray) = given.iter().find(|given| !names.iter().any(|name| means(given, name))) {
                return Err(format!(
                    "target_modules names {stray:?}, but the model has no such linear or embedding module"
                ));
            }
            Ok(names.iter().map(|name| given.iter().any(|given| means(given, name))).collect())
        }
    }
}

/// The value of each module for which there is one: that of the first pattern that its name ends with.
fn by_pattern<T: Copy>(
    patterns: Option<Map<String, Value>>,
    names: &[String],
    key: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, String> {
    let mut values = BTreeMap::new();
    for (pattern, value) in patterns.unwrap_or_default() {
        let read = read(&value).ok_or_else(|| format!("{key} has {value} for {pattern:?}, which is no such number"))?;
        let regex = regex(&format!(r"^(?:.*\.)?(?:{pattern})$"), key)?;
        for name in names.iter().filter(|name| regex.is_match(name)) {
            values.entry(name.clone()).or_insert(read);
        }
    }
    Ok(values)
}

/// A regular expression of a file: it matches in linear time and cannot grow beyond its bytes.
pub(super) fn regex(pattern: &str, key: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    built.map_err(|e| {
        let reason = e.to_string();
        format!("{key} has a regular expression that cannot be used: {}", reason.lines().last().unwrap_or_default())
    })
}

/// The `adapter_config.json` of `adapter`, whose modules are `leaves`, of those of `names` that the model has.
pub(super) fn to_json(adapter: &Adapter, leaves: &[Leaf<'_>], names: &[String]) -> Result<Value, FormatError> {
    let dora = leaves.iter().any(|leaf| leaf.module.magnitude.is_some());
    if dora && let Some(leaf) = leaves.iter().find(|leaf| leaf.module.magnitude.is_none()) {
        let reason = format!("PEFT has DoRA on all modules of an adapter or on none, but {} has none here", leaf.name);
        return Err(FormatError::Inexpressible { reason });
    }
    let chosen = leaves.iter().map(|leaf| leaf.name.as_str()).collect();
    let (rank, rank_pattern) = patterns(leaves, names, |module| module.rank() as f64);
    let (alpha, alpha_pattern) = patterns(leaves, names, |module| module.alpha);
    let mut config = json!({
        "base_model_name_or_path": adapter.options.base_model,
        "bias": "none",
        "ensure_weight_tying": false,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_bias": false,
        "lora_dropout": adapter.options.dropout,
        "alpha_pattern": alpha_pattern,
        "megatron_core": "megatron.core",
        "peft_type": "LORA",
        "peft_version": VERSION,
        "qalora_group_size": 16,
        "r": rank,
        "rank_pattern": rank_pattern,
        "target_modules": cover(names.iter().map(String::as_str), &chosen, kind),
        "use_dora": dora,
        "use_qalora": false,
        "use_rslora": adapter.options.rs_lora,
    });
    const ABSENT: [&str; 20] = [
        "alora_invocation_tokens",
        "arrow_config",
        "auto_mapping",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "kasa_config",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "lora_ga_config",
        "megatron_config",
        "modules_to_save",
        "monteclora_config",
        "revision",
        "target_parameters",
        "task_type",
        "trainable_token_indices",
        "use_bdlora",
        "velora_config",
    ];
    if let Value::Object(keys) = &mut config {
        keys.extend(ABSENT.map(|key| (key.to_owned(), Value::Null)));
        keys.sort_keys();
    }
    Ok(config)
}

/// The value that most modules have, and those of the others by the names of their modules.
fn patterns(leaves: &[Leaf<'_>], all: &[String], value: impl Fn(&AdapterModule) -> f64) -> (Value, Map<String, Value>) {
    let mut groups: Vec<(f64, BTreeSet<&str>)> = Vec::new();
    for leaf in leaves {
        let value = value(&leaf.module);
        match groups.iter_mut().find(|(known, _)| *known == value) {
            Some((_, names)) => _ = names.insert(&leaf.name),
            None => groups.push((value, BTreeSet::from([leaf.name.as_str()]))),
        }
    }
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let mut groups = groups.into_iter().map(|(value, names)| (number(value), names));
    let most = groups.next().map_or(Value::Null, |(value, _)| value);
    let others = groups.flat_map(|(value, names)| {
        cover(all.iter().map(String::as_str), &names, kind).into_iter().map(move |name| (name, value.clone()))
    });
    (most, others.collect())
}

/// A whole number without a fraction, as Python writes what is an `int` there.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
