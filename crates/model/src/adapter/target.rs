//! The modules of a model that an adapter can act on.

use crate::config::ModelConfig;
use crate::layout::{Role, Site, sites};

/// A module that an adapter can act on: a linear layer or the embedding table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it stands in the model.
    pub site: Site,
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
    /// Shape of a tensor of an adapter of `rank` on this module.
    pub fn shape(&self, part: Part, rank: usize) -> Vec<usize> {
        match part {
            Part::A => vec![rank, self.inputs],
            Part::B => vec![self.outputs, rank],
            Part::Magnitude => vec![self.outputs],
        }
    }

    /// The name that both PEFT and CoreNet give a tensor, and whether it is a module's `weight` rather than a parameter.
    pub fn key(&self, part: Part) -> (&'static str, bool) {
        match (part, self.embedding) {
            (Part::A, false) => ("lora_A", true),
            (Part::B, false) => ("lora_B", true),
            (Part::A, true) => ("lora_embedding_A", false),
            (Part::B, true) => ("lora_embedding_B", false),
            (Part::Magnitude, _) => ("lora_magnitude_vector", false),
        }
    }
}

/// One of the tensors of an adapted module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The factor that the input meets first.
    A,
    /// The factor that gives the output.
    B,
    /// DoRA's lengths of rows.
    Magnitude,
}

impl Part {
    /// All of them, in the order of files.
    pub const ALL: [Part; 3] = [Part::A, Part::B, Part::Magnitude];
}

/// The modules of a model that an adapter can act on, in the order the data meets them.
pub fn targets(config: &ModelConfig) -> Vec<Target> {
    let matrices = sites(config).into_iter().filter_map(|site| {
        let &[rows, columns] = &site.spec(config).shape[..] else { return None };
        let embedding = site.role == Role::Embedding;
        let (inputs, outputs) = if embedding { (rows, columns) } else { (columns, rows) };
        Some(Target { site, name: site.module(), inputs, outputs, embedding })
    });
    matrices.collect()
}
