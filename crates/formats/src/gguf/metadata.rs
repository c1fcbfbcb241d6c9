//! The geometry in the metadata of a file, whose keys begin with the name of its architecture.

use std::collections::{BTreeMap, HashMap};

use openelm_model::{Family, Norms, QkNorm, RopeScaling};

use super::parse::{Header, Value};
use crate::inferred::Sizes;

/// Reads the sizes of the model. `factors` gives what llama.cpp divides rotary frequencies by, if the file has such a tensor.
pub(super) fn sizes(header: &Header, factors: Option<&[f32]>) -> Result<Sizes, String> {
    let values = &header.values;
    let architecture = values.get("general.architecture").and_then(Value::as_text).unwrap_or("not named");
    let family = Family::by_name(architecture).ok_or_else(|| {
        format!("its architecture is {architecture}; openelm, llama, qwen2, olmo and olmo2 can be read")
    })?;
    let mut keys = Keys::of(family, values);
    let layers = keys.size("block_count")?;
    let query_heads = keys.per_layer("attention.head_count", layers)?;
    let kv_heads = match keys.has("attention.head_count_kv") {
        false if family != Family::OpenElm => query_heads.clone(),
        _ => keys.per_layer("attention.head_count_kv", layers)?,
    };
    let ffn_dims = keys.per_layer("feed_forward_length", layers)?;
    let has = |name: &str| header.tensors.iter().any(|tensor| tensor.name == name);
    let embedding = header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let vocab_size = *embedding.and_then(|tensor| tensor.shape.first()).ok_or("it has no tensor token_embd.weight")?;
    let model_dim = keys.size("embedding_length")?;
    let norms = norms(&mut keys)?;
    let head_dim = head_dim(&mut keys, model_dim, query_heads.first().copied().unwrap_or(0))?;
    let context_length = keys.size("context_length")?;
    let rope_theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let rope_scaling = scaling(&mut keys, head_dim, rope_theta, context_length, factors)?;
    keys.refuse_others()?;
    Ok(Sizes {
        family,
        vocab_size,
        context_length,
        model_dim,
        head_dim,
        ffn_glu: true,
        norms,
        qk_norm: match family {
            Family::OpenElm if !has("blk.0.attn_q_norm.weight") => QkNorm::None,
            _ => family.qk_norm(),
        },
        tied_embeddings: !has("output.weight"),
        rope_theta,
        rope_scaling,
        layers: query_heads.into_iter().zip(kv_heads).zip(ffn_dims).map(|((q, kv), ffn)| (q, kv, ffn)).collect(),
    })
}

fn norms(keys: &mut Keys<'_>) -> Result<Norms, String> {
    let own = keys.family.norms();
    let eps = keys.number(match keys.family {
        Family::Olmo => "attention.layer_norm_epsilon",
        _ => "attention.layer_norm_rms_epsilon",
    })?;
    let fixed = matches!(keys.family, Family::OpenElm | Family::Olmo);
    match eps {
        Some(eps) if fixed && (eps.is_nan() || (eps / f64::from(own.eps) - 1.0).abs() >= 1e-3) => {
            Err(format!("its norms add {eps}; {}'s add {:e}", keys.family, own.eps))
        }
        Some(eps) if !fixed => Ok(Norms { eps: eps as f32, ..own }),
        None if !fixed => Err(format!("the key {}.attention.layer_norm_rms_epsilon is missing", keys.family.name())),
        _ => Ok(own),
    }
}

/// All heads are of one width, and turn as a whole.
fn head_dim(keys: &mut Keys<'_>, model_dim: usize, heads: usize) -> Result<usize, String> {
    let name = keys.family.name();
    let head_dim = match (keys.family, keys.optional_size("attention.key_length")?) {
        (_, Some(width)) => width,
        (Family::OpenElm, None) => return Err("the key openelm.attention.key_length is missing".to_owned()),
        _ if heads > 0 && model_dim.is_multiple_of(heads) => model_dim / heads,
        _ => return Err(format!("{name}.embedding_length is {model_dim}, which {heads} heads do not divide evenly")),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        match keys.optional_size(key)? {
            Some(other) if other != head_dim => {
                let family = keys.family;
                return Err(format!(
                    "{name}.{key} is {other}, but its heads are {head_dim} wide; {family}'s are all of one width"
                ));
            }
            _ => (),
        }
    }
    Ok(head_dim)
}

fn scaling(
    keys: &mut Keys<'_>,
    head_dim: usize,
    theta: f64,
    context_length: usize,
    factors: Option<&[f32]>,
) -> Result<RopeScaling, String> {
    let kind = keys.take("rope.scaling.type").and_then(Value::as_text).unwrap_or("none");
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    let original = keys.optional_size("rope.scaling.original_context_length")?;
    match (kind, factors) {
        ("none", None) => Ok(RopeScaling::None),
        ("linear", None) => match factor {
            Some(factor) => Ok(RopeScaling::Linear { factor }),
            None => Err("its rotations are scaled (linear), but it does not say by which factor".to_owned()),
        },
        ("none" | "linear", Some(factors)) => {
            // A damaged width must not make us allocate for it.
            let fits = 2 * factors.len() == head_dim;
            let frequencies = openelm_model::kernels::rope::frequencies(if fits { head_dim } else { 0 }, theta);
            llama3(&frequencies, factors, original, context_length)
                .ok_or_else(|| "its rope_freqs.weight scales rotations in a way that is not Llama 3's".to_owned())
        }
        (other, _) => Err(format!("its rotations are scaled ({other}), which cannot be followed; linear scaling can")),
    }
}

/// The scaling of Llama 3 that divides each of `frequencies` by one of `factors`, which a file has in place of its numbers.
fn llama3(frequencies: &[f32], factors: &[f32], original: Option<usize>, context_length: usize) -> Option<RopeScaling> {
    let factor = factors.iter().copied().fold(0.0, f32::max);
    let powers = (0..usize::BITS - 1).map(|bits| 1usize << bits).take_while(|&length| length <= context_length);
    // Those of all models that were published so.
    let (low_turns, high_turns) = (1.0, 4.0);
    original.into_iter().chain(powers).find_map(|original_length| {
        let scaling = RopeScaling::Llama3 { factor: factor.into(), low_turns, high_turns, original_length };
        let near = |(f, divisor): (&f32, &f32)| (scaling.divisor((*f).into()) / f64::from(*divisor) - 1.0).abs() < 1e-4;
        (frequencies.len() == factors.len() && frequencies.iter().zip(factors).all(near)).then_some(scaling)
    })
}

/// The keys of the architecture that were not looked at yet, by what stands behind its name.
struct Keys<'a> {
    family: Family,
    values: BTreeMap<&'a str, &'a Value>,
}

/// Keys that say nothing of what a model computes.
const WITHOUT_EFFECT: [&str; 2] = ["vocab_size", "rope.scaling.finetuned"];

impl<'a> Keys<'a> {
    fn of(family: Family, values: &'a HashMap<String, Value>) -> Self {
        let own =
            values.iter().filter_map(|(key, value)| Some((key.strip_prefix(family.name())?.strip_prefix('.')?, value)));
        Self { family, values: own.collect() }
    }

    fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.values.remove(key)
    }

    fn name(&self, key: &str) -> String {
        format!("the key {}.{key}", self.family.name())
    }

    fn optional_size(&mut self, key: &str) -> Result<Option<usize>, String> {
        let value = self.take(key);
        value.map(|value| value.as_usize().ok_or_else(|| format!("{} is no size", self.name(key)))).transpose()
    }

    fn size(&mut self, key: &str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("{} is missing", self.name(key)))
    }

    /// A number that need not be there; but if it is, it must be one.
    fn number(&mut self, key: &str) -> Result<Option<f64>, String> {
        let value = self.take(key);
        value.map(|value| value.as_f64().ok_or_else(|| format!("{} is no number", self.name(key)))).transpose()
    }

    /// A number for each layer, or one for all.
    fn per_layer(&mut self, key: &str, layers: usize) -> Result<Vec<usize>, String> {
        // No model has more; a damaged number must not make us allocate for it.
        const MAX_LAYERS: usize = 1 << 16;
        if layers > MAX_LAYERS {
            return Err(format!("{} is {layers}", self.name("block_count")));
        }
        let Some(list) = self.values.get(key).and_then(|value| value.as_array()) else {
            return self.size(key).map(|value| vec![value; layers]);
        };
        self.values.remove(key);
        if list.len() != layers {
            return Err(format!("{} has {} entries for {layers} layers", self.name(key), list.len()));
        }
        list.iter().map(|value| value.as_usize().ok_or_else(|| format!("{} holds no sizes", self.name(key)))).collect()
    }

    /// Refuses keys that may say something of the arithmetic, such as experts and windows.
    fn refuse_others(mut self) -> Result<(), String> {
        if self.family == Family::OpenElm {
            return Ok(());
        }
        // Written by early conversions: the order of queries and keys.
        match self.take("tensor_data_layout").map(Value::as_text) {
            None => (),
            Some(Some("Meta AI original pth")) if matches!(self.family, Family::Llama | Family::Olmo) => (),
            Some(layout) => {
                let layout = layout.unwrap_or("no name");
                return Err(format!(
                    "{} is {layout}: queries and keys are in another order",
                    self.name("tensor_data_layout")
                ));
            }
        }
        let off = |value: &Value| matches!(value, Value::Bool(false)) || value.as_f64() == Some(0.0);
        match self.values.iter().find(|(key, value)| !WITHOUT_EFFECT.contains(*key) && !off(value)) {
            Some((key, _)) => Err(format!("{} is not known: it may change what the model computes", self.name(key))),
            None => Ok(()),
        }
    }
}
