//! Numbers of a model's tensors in one buffer: weights in training, gradients and moments share the layout, so that norms,
//! clipping, optimiser and checkpoints are single passes over memory.

use std::ops::Range;

use openelm_model::{ModelConfig, TensorSpec, tensor_specs};

/// One `f32` for each element of some of a model's tensors, tensor after tensor.
#[derive(Clone)]
pub struct Parameters {
    specs: Vec<TensorSpec>,
    values: Vec<f32>,
}

impl Parameters {
    /// Zeros for the tensors of `specs`, in the order in which the data meets them: see [`tensor_specs`].
    pub fn of(mut specs: Vec<TensorSpec>) -> Self {
        specs.sort_by_key(Part::of);
        Self { values: vec![0.0; length(&specs)], specs }
    }

    /// Zeros for all tensors of `config`.
    pub fn zeros(config: &ModelConfig) -> Self {
        Self::of(tensor_specs(config))
    }

    /// Names and shapes of the tensors, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// All values, tensor after tensor.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, tensor after tensor.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Each tensor with its values.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, &[f32])> {
        let mut rest = &self.values[..];
        self.specs.iter().map(move |spec| {
            let (values, tail) = rest.split_at(spec.len());
            rest = tail;
            (spec, values)
        })
    }

    /// Each tensor with its values.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = (&TensorSpec, &mut [f32])> {
        split(&self.specs, &mut self.values)
    }

    /// Sets all vectors to zero.
    pub(crate) fn clear_vectors(&mut self) {
        for (_, values) in self.tensors_mut().filter(|(spec, _)| spec.shape.len() == 1) {
            values.fill(0.0);
        }
    }

    /// Where the tensors lie that a backward pass completes together, in order.
    pub(crate) fn segments(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let segments = self.specs.chunk_by(|a, b| Part::of(a) == Part::of(b)).map(|specs| {
            let start = end;
            end += length(specs);
            start..end
        });
        segments.collect()
    }

    /// The buffer in parts that a backward pass completes together. A part of which there is no tensor here is empty.
    pub(crate) fn parts(&mut self, layers: usize) -> Parts<'_> {
        let mut parts = Parts { layers: (0..layers).map(|_| Segment::default()).collect(), ..Parts::default() };
        let (mut start, mut rest) = (0, &mut self.values[..]);
        for specs in self.specs.chunk_by(|a, b| Part::of(a) == Part::of(b)) {
            let (values, tail) = std::mem::take(&mut rest).split_at_mut(length(specs));
            let segment = Segment { start, specs, values };
            (start, rest) = (start + segment.values.len(), tail);
            match Part::of(&specs[0]) {
                Part::Embedding => parts.embedding = segment,
                Part::Layer(layer) => parts.layers[layer] = segment,
                Part::Tail => parts.tail = segment,
            }
        }
        parts
    }
}

/// What a backward pass completes together, in the order in which a forward pass meets it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Embedding,
    Layer(usize),
    /// What follows the layers.
    Tail,
}

impl Part {
    fn of(spec: &TensorSpec) -> Self {
        let layer = || spec.name.strip_prefix("layers.")?.split('.').next()?.parse().ok();
        match layer() {
            Some(layer) => Self::Layer(layer),
            None if spec.name.starts_with("token_embeddings.") => Self::Embedding,
            None => Self::Tail,
        }
    }
}

fn length(specs: &[TensorSpec]) -> usize {
    specs.iter().map(TensorSpec::len).sum()
}

/// The values of each tensor, which lie one after another.
fn split<'a>(
    specs: &'a [TensorSpec],
    mut rest: &'a mut [f32],
) -> impl Iterator<Item = (&'a TensorSpec, &'a mut [f32])> {
    specs.iter().map(move |spec| {
        let (values, tail) = std::mem::take(&mut rest).split_at_mut(spec.len());
        rest = tail;
        (spec, values)
    })
}

/// All parts of a buffer.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    pub embedding: Segment<'a>,
    pub layers: Vec<Segment<'a>>,
    /// What follows the layers.
    pub tail: Segment<'a>,
}

/// Tensors that a backward pass completes together.
#[derive(Default)]
pub(crate) struct Segment<'a> {
    /// Where it begins among all values.
    pub start: usize,
    specs: &'a [TensorSpec],
    pub values: &'a mut [f32],
}

impl Segment<'_> {
    /// Each tensor by its name, which lacks the number of the layer: `attn.out_proj.weight`.
    pub fn tensors(&mut self) -> impl Iterator<Item = (&str, &mut [f32])> {
        split(self.specs, self.values).map(|(spec, values)| {
            let within = spec.name.strip_prefix("layers.").and_then(|name| name.split_once('.'));
            (within.map_or(spec.name.as_str(), |(_, name)| name), values)
        })
    }

    /// Whether nothing here is trained.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use openelm_model::Geometry;

    use super::*;

    #[test]
    fn a_subset_of_the_tensors_lies_in_the_order_of_the_model() {
        let config = Geometry { layers: 3, dim: 64, head_dim: 16, ..Geometry::default() }.build(50).unwrap();
        let mut wanted: Vec<TensorSpec> = tensor_specs(&config);
        wanted.retain(|spec| spec.name.contains("proj_2") || spec.name == "norm.weight");
        wanted.reverse();
        let mut subset = Parameters::of(wanted);
        let names: Vec<&str> = subset.specs().iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names[2..], ["layers.2.ffn.proj_2.weight", "norm.weight"]);
        let segments = subset.segments();
        let parts = subset.parts(3);
        assert!(parts.embedding.is_empty());
        let all = parts.layers.into_iter().chain([parts.tail]);
        for (mut part, segment) in all.zip(segments) {
            assert_eq!((part.start, part.values.len()), (segment.start, segment.len()));
            let name = if segment.len() == 64 { "norm.weight" } else { "ffn.proj_2.weight" };
            assert_eq!(part.tensors().map(|(name, _)| name).collect::<Vec<_>>(), [name]);
        }
    }
}
