//! The part `model.lora` of CoreNet's YAML: regular expressions for kinds of modules, worked out for each module, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use openelm_model::{Adapter, AdapterOptions, Target};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::corenet::ADAPTER_NAME;
use super::cover::{cover, kind};
use super::parts::Settings;
use super::peft_config::{number, regex};
use crate::FormatError;
use crate::corenet::{part_of_yaml, yaml_files};

#[derive(Serialize, Deserialize)]
struct Yaml {
    model: Model,
}

#[derive(Serialize, Deserialize)]
struct Model {
    lora: Lora,
}

#[derive(Serialize, Deserialize)]
struct Lora {
    use_lora: bool,
    #[serde(default)]
    config: Vec<LayerConfig>,
}

#[derive(Serialize, Deserialize)]
struct LayerConfig {
    regex: String,
    module_type: String,
    params: Params,
}

#[derive(Serialize, Deserialize)]
struct Params {
    adapter_name: String,
    r: usize,
    lora_alpha: Value,
    lora_dropout: f64,
    init_lora_weights: Value,
    use_rslora: bool,
    use_dora: bool,
}

/// A configuration, worked out for the modules of a model.
pub(super) struct Config {
    pub options: AdapterOptions,
    /// The modules that it adapts, by CoreNet's names.
    pub settings: BTreeMap<String, Settings>,
    pub adapter_name: String,
}

impl Config {
    /// The rank in CoreNet's published configurations.
    pub const PUBLISHED_RANK: usize = 32;

    /// What CoreNet's published configurations say.
    pub fn published(targets: &[Target], dora: bool) -> Self {
        let settings = Settings { rank: Self::PUBLISHED_RANK, alpha: 32.0, dora };
        Self {
            options: AdapterOptions { dropout: 0.1, ..AdapterOptions::default() },
            settings: targets.iter().map(|target| (target.name.clone(), settings)).collect(),
            adapter_name: ADAPTER_NAME.to_owned(),
        }
    }

    /// The first YAML file in `folder` that configures an adapter.
    pub fn find(folder: &Path, targets: &[Target]) -> Result<Option<Self>, FormatError> {
        for path in yaml_files(folder)? {
            let Some(Yaml { model: Model { lora } }) = part_of_yaml(&path, "lora:")? else { continue };
            if lora.use_lora {
                let config = Self::new(lora.config, targets);
                return config.map(Some).map_err(|reason| FormatError::Config { path, reason });
            }
        }
        Ok(None)
    }

    fn new(layers: Vec<LayerConfig>, targets: &[Target]) -> Result<Self, String> {
        let Some(first) = layers.first() else { return Err("model.lora.config is empty".to_owned()) };
        // The embedding's dropout is not used.
        let linear = layers.iter().find(|layer| layer.module_type == "linear").unwrap_or(first);
        let (name, rs_lora, dropout) =
            (&first.params.adapter_name, first.params.use_rslora, linear.params.lora_dropout);
        let options = AdapterOptions { dropout, rs_lora, base_model: None };
        let mut settings = BTreeMap::new();
        for layer in &layers {
            let LayerConfig { regex: pattern, module_type, params } = layer;
            let embedding = match module_type.as_str() {
                "linear" => false,
                "embedding" => true,
                other => return Err(format!("module_type is {other:?}; known are \"linear\" and \"embedding\"")),
            };
            if params.adapter_name != *name || params.use_rslora != rs_lora {
                return Err("the entries of model.lora.config differ in adapter_name or use_rslora".to_owned());
            }
            if !embedding && params.lora_dropout != dropout {
                return Err("the linear entries of model.lora.config differ in lora_dropout".to_owned());
            }
            let alpha = params.lora_alpha.as_f64().filter(|_| params.r > 0);
            let alpha = alpha.ok_or_else(|| format!("the entry {pattern:?} has no rank or no alpha"))?;
            // As Python's `re.match`, which begins at the beginning and ends anywhere.
            let regex = regex(&format!("^(?:{pattern})"), "model.lora.config")?;
            for target in targets.iter().filter(|target| regex.is_match(&target.name)) {
                if target.embedding != embedding {
                    return Err(format!("the entry {pattern:?} takes {} for {module_type}", target.name));
                }
                let of_layer = Settings { rank: params.r, alpha, dora: params.use_dora };
                if settings.insert(target.name.clone(), of_layer).is_some() {
                    return Err(format!("two entries of model.lora.config match {}", target.name));
                }
            }
        }
        Ok(Self { options, settings, adapter_name: name.clone() })
    }
}

/// The YAML of `adapter`: an entry for each set of modules with the same settings.
pub(super) fn to_yaml(adapter: &Adapter) -> Result<String, FormatError> {
    let mut groups: Vec<(bool, Settings, BTreeSet<&str>)> = Vec::new();
    for (target, module) in adapter.modules() {
        let settings = Settings { rank: module.rank(), alpha: module.alpha, dora: module.magnitude.is_some() };
        match groups.iter_mut().find(|(embedding, known, _)| (*embedding, *known) == (target.embedding, settings)) {
            Some((.., names)) => _ = names.insert(&target.name),
            None => groups.push((target.embedding, settings, BTreeSet::from([target.name.as_str()]))),
        }
    }
    let entry = |(embedding, settings, names): (bool, Settings, BTreeSet<&str>)| {
        let all = adapter.targets().iter().map(|target| target.name.as_str());
        let names: Vec<String> = cover(all, &names, kind).into_iter().map(|name| name.replace('.', r"\.")).collect();
        LayerConfig {
            regex: format!(r"(.*\.)?({})$", names.join("|")),
            module_type: if embedding { "embedding" } else { "linear" }.to_owned(),
            params: Params {
                adapter_name: ADAPTER_NAME.to_owned(),
                r: settings.rank,
                lora_alpha: number(settings.alpha),
                lora_dropout: adapter.options.dropout,
                init_lora_weights: true.into(),
                use_rslora: adapter.options.rs_lora,
                use_dora: settings.dora,
            },
        }
    };
    let lora = Lora { use_lora: true, config: groups.into_iter().map(entry).collect() };
    serde_saphyr::to_string(&Yaml { model: Model { lora } })
        .map_err(|e| FormatError::Inexpressible { reason: e.to_string() })
}
