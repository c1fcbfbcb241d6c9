//! Tensor names: llama.cpp's for CoreNet's. `proj_1` of CoreNet is two tensors here, gate above up.

/// Parts of a layer: CoreNet's, then llama.cpp's.
const PARTS: [(&str, &str); 7] = [
    ("attn_norm", "attn_norm"),
    ("attn.qkv_proj", "attn_qkv"),
    ("attn.q_norm", "attn_q_norm"),
    ("attn.k_norm", "attn_k_norm"),
    ("attn.out_proj", "attn_output"),
    ("ffn_norm", "ffn_norm"),
    ("ffn.proj_2", "ffn_down"),
];

/// A tensor of CoreNet in llama.cpp's names.
pub(super) enum Names {
    /// It has one name.
    One(String),
    /// It is in two tensors, the rows of the first above those of the second.
    Two(String, String),
}

/// llama.cpp's name of CoreNet's `name`.
pub(super) fn names_of(name: &str) -> Option<Names> {
    let one = |name: String| Some(Names::One(name));
    match name {
        "token_embeddings.weight" => return one("token_embd.weight".to_owned()),
        "norm.weight" => return one("output_norm.weight".to_owned()),
        "classifier.weight" => return one("output.weight".to_owned()),
        _ => (),
    }
    let (layer, part) = name.strip_prefix("layers.")?.strip_suffix(".weight")?.split_once('.')?;
    if part == "ffn.proj_1" {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        return Some(Names::Two(name("ffn_gate"), name("ffn_up")));
    }
    let (_, theirs) = PARTS.iter().find(|(ours, _)| *ours == part)?;
    one(format!("blk.{layer}.{theirs}.weight"))
}
