//! Names of tensors: Apple's for OpenELM, and those that the other families share.

use openelm_model::{Family, ModelConfig, NormPlacement, Role, Site};

use crate::places::{self, Place};

/// The places of the tensor at `site` of a model of `config`.
pub(crate) fn places(config: &ModelConfig, site: Site) -> Vec<Place> {
    let names = match config.family {
        Family::OpenElm => vec![file_name_of(&site.spec(config).name)],
        _ => neighbours_names(config.norms.placement, site),
    };
    places::places(config, site, names)
}

/// The name by which the tensor `name` of a file is looked for; `None` for buffers that hold nothing learned.
pub(crate) fn known_name(family: Family, name: &str) -> Option<String> {
    match family {
        Family::OpenElm => corenet_name(name).map(|name| file_name_of(&name)),
        _ => (!name.contains("rotary_emb")).then(|| name.to_owned()),
    }
}

/// CoreNet's name of a tensor of an OpenELM, or `None` for buffers that hold nothing learned.
pub(crate) fn corenet_name(name: &str) -> Option<String> {
    if name.contains("inv_freq") || name.contains("rotary") || name.contains("pos_embedding") {
        return None;
    }
    Some(match name {
        "lm_head.weight" => "classifier.weight".to_owned(),
        _ => name.strip_prefix("transformer.").unwrap_or(name).to_owned(),
    })
}

/// The name in Apple's layout of CoreNet's `name`.
pub(crate) fn file_name_of(name: &str) -> String {
    match name.split_once('.') {
        Some(("classifier", part)) => format!("lm_head.{part}"),
        _ => format!("transformer.{name}"),
    }
}

/// The names of the parts of a tensor of Llama and its neighbours.
fn neighbours_names(placement: NormPlacement, site: Site) -> Vec<String> {
    let behind = placement == NormPlacement::Behind;
    let (modules, part): (&[&str], _) = match site.role {
        Role::Embedding => (&["embed_tokens"], "weight"),
        Role::Norm => (&["norm"], "weight"),
        Role::Head => return vec!["lm_head.weight".to_owned()],
        Role::AttnNorm if behind => (&["post_attention_layernorm"], "weight"),
        Role::AttnNorm => (&["input_layernorm"], "weight"),
        Role::QkvProj => (&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "weight"),
        Role::QkvBias => (&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "bias"),
        Role::QNorm => (&["self_attn.q_norm"], "weight"),
        Role::KNorm => (&["self_attn.k_norm"], "weight"),
        Role::OutProj => (&["self_attn.o_proj"], "weight"),
        Role::FfnNorm if behind => (&["post_feedforward_layernorm"], "weight"),
        Role::FfnNorm => (&["post_attention_layernorm"], "weight"),
        Role::Proj1 => (&["mlp.gate_proj", "mlp.up_proj"], "weight"),
        Role::Proj2 => (&["mlp.down_proj"], "weight"),
    };
    let within = site.layer.map_or(String::new(), |layer| format!("layers.{layer}."));
    modules.iter().map(|module| format!("model.{within}{module}.{part}")).collect()
}
