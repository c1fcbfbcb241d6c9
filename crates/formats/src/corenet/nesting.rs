//! Where the model's tensors lie in a saved dictionary: training scripts put them under a key of their own beside their
//! optimiser, and wrap the model once or twice more.

use std::collections::HashMap;

/// Modules that wrap another and do nothing to its weights: `DataParallel`, `torch.compile`, FSDP, activation checkpoints.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Keys under which models are saved, and names that they have as a part of another; the first counts where there are several.
const KEYS: [&str; 6] = ["model_state_dict", "state_dict", "model", "model_state", "transformer", "weights"];

/// The tensor that every model has, and the module it is in.
const ANCHOR: &str = "token_embeddings.weight";
const ANCHOR_MODULE: &str = "token_embeddings";

/// The model's tensors by CoreNet's names. What lies elsewhere, such as moments, is left out.
pub(super) fn unwrapped<T>(tensors: HashMap<String, T>) -> HashMap<String, T> {
    let place = place(&tensors);
    // The output projection lies beside the rest in Hugging Face's layout.
    let head = place.strip_suffix("transformer.").map(|outer| format!("{outer}lm_head.weight"));
    let own = tensors.into_iter().filter_map(|(name, tensor)| match name.strip_prefix(&place) {
        Some(own) => Some((bare(own), tensor)),
        None if head.as_deref() == Some(&name) => Some(("classifier.weight".to_owned(), tensor)),
        None => None,
    });
    own.collect()
}

/// `name` without the wrappers.
fn bare(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    parts.retain(|part| !WRAPPERS.contains(part));
    parts.join(".")
}

/// What stands before the names of the model's tensors: nothing, or keys and wrappers with a dot behind each.
fn place<T>(tensors: &HashMap<String, T>) -> String {
    let places = tensors.keys().filter(|name| bare(name).ends_with(ANCHOR)).filter_map(|name| {
        let (place, _) = name.rsplit_once(ANCHOR_MODULE)?;
        Some(place).filter(|place| bare(place).split_terminator('.').all(|key| KEYS.contains(&key)))
    });
    let rank = |place: &&str| {
        (place.matches('.').count(), KEYS.iter().position(|key| place.starts_with(key)), (*place).to_owned())
    };
    // An adapter has no embedding table.
    let of_checkpoint = || Some("model_state_dict.").filter(|key| tensors.keys().any(|name| name.starts_with(key)));
    places.min_by_key(rank).or_else(of_checkpoint).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        let mut names: Vec<String> =
            unwrapped(of.iter().map(|name| ((*name).to_owned(), ())).collect()).into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn the_model_is_found_under_whatever_key_it_lies() {
        let own = ["layers.0.attn.q_norm.weight", "token_embeddings.weight"];
        for place in [
            "",
            "model_state_dict.",
            "state_dict.",
            "model.",
            "module.",
            "_orig_mod.",
            "model._orig_mod.",
            "_orig_mod.module.",
            "state_dict.model.",
            "model_state_dict.module.",
            "_fsdp_wrapped_module.",
        ] {
            let wrapped = own.map(|name| format!("{place}{name}"));
            let mut all: Vec<&str> = wrapped.iter().map(String::as_str).collect();
            if !place.is_empty() {
                all.extend([
                    "optimizer.state.0.exp_avg",
                    "exp_avg.token_embeddings.weight",
                    "ema.token_embeddings.weight",
                ]);
            }
            assert_eq!(names(&all), own, "{place:?}");
        }
        // Within, too.
        assert_eq!(
            names(&["token_embeddings.weight", "layers.0._orig_mod.attn.q_norm.weight"]),
            own.map(str::to_owned)
        );
    }

    #[test]
    fn hugging_faces_names_are_known() {
        let found = names(&["transformer.norm.weight", "transformer.token_embeddings.weight", "lm_head.weight"]);
        assert_eq!(found, ["classifier.weight", "norm.weight", "token_embeddings.weight"]);
    }

    #[test]
    fn adapters_have_no_table() {
        let found = names(&["model_state_dict.module.layers.0.attn.qkv_proj.lora_A.lora.weight", "optim.moment"]);
        assert_eq!(found, ["layers.0.attn.qkv_proj.lora_A.lora.weight"]);
    }
}
