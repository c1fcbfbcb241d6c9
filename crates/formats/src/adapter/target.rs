//! The modules of a model that an adapter can act on.

use std::collections::{BTreeMap, BTreeSet};

use openelm_model::{ModelConfig, tensor_specs};

/// A module that an adapter can act on: a linear layer or the embedding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// CoreNet's name, for example `layers.0.attn.qkv_proj`.
    pub name: String,
    /// Width of the input; of the embedding table its rows, for its input is an id.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
    /// Whether it is the embedding table.
    pub embedding: bool,
}

impl Target {
    /// The last part of the name, by which configurations mean the modules of all layers: `qkv_proj`.
    pub(super) fn kind(&self) -> &str {
        kind(&self.name)
    }

    /// Shape of a tensor of an adapter of `rank` on this module.
    pub(super) fn shape(&self, part: Part, rank: usize) -> Vec<usize> {
        match part {
            Part::A => vec![rank, self.inputs],
            Part::B => vec![self.outputs, rank],
            Part::Magnitude => vec![self.outputs],
        }
    }

    /// The name that both PEFT and CoreNet give a tensor, and whether it is a module's `weight` rather than a parameter.
    pub(super) fn key(&self, part: Part) -> (&'static str, bool) {
        match (part, self.embedding) {
            (Part::A, false) => ("lora_A", true),
            (Part::B, false) => ("lora_B", true),
            (Part::A, true) => ("lora_embedding_A", false),
            (Part::B, true) => ("lora_embedding_B", false),
            (Part::Magnitude, _) => ("lora_magnitude_vector", false),
        }
    }
}

fn kind(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// One of the tensors of an adapted module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
    Magnitude,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::A, Part::B, Part::Magnitude];
}

/// The modules of a model that an adapter can act on, in the order the data meets them.
pub fn targets(config: &ModelConfig) -> Vec<Target> {
    let matrices = tensor_specs(config).into_iter().filter_map(|spec| {
        let &[rows, columns] = &spec.shape[..] else { return None };
        let name = spec.name.strip_suffix(".weight")?.to_owned();
        let embedding = name == "token_embeddings";
        let (inputs, outputs) = if embedding { (rows, columns) } else { (columns, rows) };
        Some(Target { name, inputs, outputs, embedding })
    });
    matrices.collect()
}

/// The shortest list of names that means just the modules `chosen`, sorted: a kind where all modules of it are chosen, whole
/// names otherwise.
pub(super) fn cover(targets: &[Target], chosen: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut whole: BTreeMap<&str, bool> = BTreeMap::new();
    for target in targets {
        *whole.entry(target.kind()).or_insert(true) &= chosen.contains(target.name.as_str());
    }
    let shortest = |name: &str| if whole.get(kind(name)) == Some(&true) { kind(name) } else { name }.to_owned();
    chosen.iter().map(|name| shortest(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_only_where_all_of_it_is_meant() {
        let targets = targets(&ModelConfig::openelm_270m());
        let all = targets.iter().map(|target| target.name.as_str()).filter(|name| name.ends_with("qkv_proj"));
        let mut chosen: BTreeSet<&str> = all.collect();
        chosen.insert("token_embeddings");
        chosen.insert("layers.3.ffn.proj_1");
        assert_eq!(
            cover(&targets, &chosen),
            ["layers.3.ffn.proj_1", "qkv_proj", "token_embeddings"].map(str::to_owned).into()
        );
        assert_eq!(cover(&targets, &BTreeSet::new()), BTreeSet::new());
    }
}
