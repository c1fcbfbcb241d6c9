//! Tensor names: llama.cpp's for the places of a model. Gate and up are two tensors here; of other families than OpenELM
//! queries, keys and values are three.

use openelm_model::{Family, ModelConfig, NormPlacement, Role, Site};

use crate::places::{self, Place};

/// The places of the tensor at `site` of a model of `config`.
pub(super) fn places(config: &ModelConfig, site: Site) -> Vec<Place> {
    let is_openelm = config.family == Family::OpenElm;
    let behind = config.norms.placement == NormPlacement::Behind;
    let (names, part): (&[&str], _) = match site.role {
        Role::Embedding => (&["token_embd"], "weight"),
        Role::Norm => (&["output_norm"], "weight"),
        Role::Head => (&["output"], "weight"),
        Role::AttnNorm if behind => (&["post_attention_norm"], "weight"),
        Role::AttnNorm => (&["attn_norm"], "weight"),
        Role::QkvProj if is_openelm => (&["attn_qkv"], "weight"),
        Role::QkvProj => (&["attn_q", "attn_k", "attn_v"], "weight"),
        Role::QkvBias => (&["attn_q", "attn_k", "attn_v"], "bias"),
        Role::QNorm => (&["attn_q_norm"], "weight"),
        Role::KNorm => (&["attn_k_norm"], "weight"),
        Role::OutProj => (&["attn_output"], "weight"),
        Role::FfnNorm if behind => (&["post_ffw_norm"], "weight"),
        Role::FfnNorm => (&["ffn_norm"], "weight"),
        Role::Proj1 if config.ffn_glu => (&["ffn_gate", "ffn_up"], "weight"),
        Role::Proj1 => (&["ffn_up"], "weight"),
        Role::Proj2 => (&["ffn_down"], "weight"),
    };
    let within = site.layer.map_or(String::new(), |layer| format!("blk.{layer}."));
    let names = names.iter().map(|name| format!("{within}{name}.{part}")).collect();
    places::places(config, site, names)
}
