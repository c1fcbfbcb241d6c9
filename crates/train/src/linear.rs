//! Linear layers, backward: the mirror of [`openelm_model::Linear`], with the changes that an adapter makes.
//!
//! ```text
//! y = gain (W x + scale B (A x))        dz = gain dy        gain = magnitude / length, the length taken as constant
//!
//! dx = W^T dz + scale A^T (B^T dz)      dW = dz^T x         dB = dz^T (scale A x)      dA = (scale B^T dz)^T x
//!                                                           dmagnitude = sum over rows of dy (W x + scale B A x) / length
//!                                                                      = sum over rows of dy y / magnitude
//! ```
//!
//! Where inputs are dropped, `x` stands for what is left of it in `dA` and `dB`, and the second part of `dx` passes where it did.
//! Lengths of rows are not led through (Liu et al. 2024, section 4.3), as in PEFT and CoreNet.

use half::bf16;
use openelm_kernels::rounded::{self, Products};
use openelm_kernels::{Matrix, Threads, dropout, gains, linear};
use openelm_model::block::fit;
use openelm_model::{Delta, Linear};

use crate::parameters::Segment;

/// Names of what an adapter trains in a module, behind the module's name and a dot.
pub(crate) const LORA_A: &str = "lora_a";
pub(crate) const LORA_B: &str = "lora_b";
pub(crate) const MAGNITUDE: &str = "lora_magnitude";

/// Where the derivatives by a layer's weights are written or added, for those that are trained.
#[derive(Default)]
pub(crate) struct LinearGradients<'a> {
    /// `[outputs, inputs]`.
    pub weight: Option<&'a mut [f32]>,
    /// `[rank, inputs]`.
    pub a: Option<&'a mut [f32]>,
    /// `[outputs, rank]`.
    pub b: Option<&'a mut [f32]>,
    /// `[outputs]`.
    pub magnitude: Option<&'a mut [f32]>,
}

impl<'a> LinearGradients<'a> {
    /// The place for the tensor `part` of the module: `weight`, or one of an adapter's; `None` if there is no such.
    pub fn part(&mut self, part: &str) -> Option<&mut Option<&'a mut [f32]>> {
        match part {
            "weight" => Some(&mut self.weight),
            LORA_A => Some(&mut self.a),
            LORA_B => Some(&mut self.b),
            MAGNITUDE => Some(&mut self.magnitude),
            _ => None,
        }
    }

    /// The tensors of the one module that `segment` is about.
    ///
    /// # Panics
    /// If there are others.
    pub fn of(segment: &'a mut Segment<'_>) -> Self {
        let mut gradients = Self::default();
        for (name, values) in segment.tensors() {
            let part = name.rsplit('.').next().unwrap_or(name);
            *gradients.part(part).unwrap_or_else(|| panic!("no linear layer has a {name}")) = Some(values);
        }
        gradients
    }

    /// Whether the input is needed for some of them.
    pub fn any(&self) -> bool {
        self.weight.is_some() || self.a.is_some() || self.b.is_some() || self.magnitude.is_some()
    }
}

/// Buffers of backward passes.
#[derive(Default)]
pub(crate) struct LinearBuffers {
    /// Derivative by what the gains multiply, `[N, outputs]`.
    dz: Vec<f32>,
    /// What the gains multiply, `[N, outputs]`.
    z: Vec<f32>,
    /// `scale A x` and its derivative, `[N, rank]`.
    inner: Vec<f32>,
    dinner: Vec<f32>,
    /// The input with some of it dropped, or the derivative by it, `[N, inputs]`.
    dropped: Vec<f32>,
    rounded: rounded::Buffers,
}

impl LinearBuffers {
    /// Buffers of products with rounded factors.
    pub fn rounded(&mut self) -> &mut rounded::Buffers {
        &mut self.rounded
    }
}

/// The change to a layer of which all rows of a pass have the same.
fn delta<'a>(linear: &Linear<'a>) -> Option<Delta<'a>> {
    linear.changes.first().and_then(|change| change.deltas.get(&linear.site)).copied()
}

/// Writes the derivative by the input, `dx`, `[N, inputs]`, from that by the output, `dout`, `[N, outputs]`.
pub(crate) fn backward_input(
    threads: &Threads,
    linear: &Linear<'_>,
    dx: &mut [f32],
    dout: &[f32],
    inputs: usize,
    scratch: &mut LinearBuffers,
) {
    backward_input_across(threads, linear, None, dx, dout, inputs, scratch);
}

/// [`backward_input`], with the weights rounded and transposed, `across`, if they are so already.
pub(crate) fn backward_input_across(
    threads: &Threads,
    linear: &Linear<'_>,
    across: Option<&[bf16]>,
    dx: &mut [f32],
    dout: &[f32],
    inputs: usize,
    scratch: &mut LinearBuffers,
) {
    let LinearBuffers { dz, dinner, dropped, rounded, .. } = scratch;
    let delta = delta(linear);
    let dz = delta.as_ref().map_or(dout, |delta| through_gains(threads, dz, dout, delta));
    match (linear.products, linear.matrix, across) {
        (_, _, Some(across)) => rounded::backward_input_across(threads, dx, dz, across, inputs, false, rounded),
        (Products::BF16, Matrix::F32(weight), None) => {
            rounded::backward_input(threads, dx, dz, weight, inputs, false, rounded);
        }
        _ => linear::backward_input(threads, dx, dz, linear.matrix, inputs, false),
    }
    let Some(delta) = delta else { return };
    derivative_of_inner(threads, dinner, dz, &delta);
    match delta.dropout {
        None => linear::backward_input(threads, dx, dinner, Matrix::F32(delta.a), inputs, true),
        Some(dropout) => {
            fit(dropped, dx.len());
            linear::backward_input(threads, dropped, dinner, Matrix::F32(delta.a), inputs, false);
            dropout::backward(threads, dx, dropped, inputs, dropout);
        }
    }
}

/// Writes the derivatives by what is trained, or adds them if `accumulate`, as those by a magnitude always are; from the input `x`,
/// `[N, inputs]`, and the derivative by the output, `dout`, `[N, outputs]`. `lengths` are DoRA's, `[outputs]`; `output` is what the
/// layer gave, if it was kept, `[N, outputs]`: it saves the product with the weights that the derivative by the magnitude would take.
pub(crate) fn backward_weights(
    threads: &Threads,
    linear: &Linear<'_>,
    gradients: &mut LinearGradients<'_>,
    accumulate: bool,
    (dout, x, inputs): (&[f32], &[f32], usize),
    (lengths, output): (Option<&[f32]>, Option<&[f32]>),
    scratch: &mut LinearBuffers,
) {
    if let Some(weight) = &mut gradients.weight {
        match linear.products {
            Products::BF16 => {
                rounded::backward_weight(threads, weight, dout, x, inputs, accumulate, &mut scratch.rounded);
            }
            Products::F32 => linear::backward_weight(threads, weight, dout, x, inputs, accumulate),
        }
    }
    let Some(delta) = delta(linear) else { return };
    let outputs = delta.b.len() / delta.rank;
    let LinearBuffers { dz, z, inner, dinner, dropped, .. } = scratch;
    let left = delta.dropped(threads, x, dropped);
    fit(inner, x.len() / inputs * delta.rank);
    linear::forward(threads, inner, left, Matrix::F32(delta.a), inputs, false);
    inner.iter_mut().for_each(|x| *x *= delta.scale);
    if let (Some(magnitude), Some(lengths)) = (&mut gradients.magnitude, lengths) {
        // What a gain of zero multiplied cannot be told from the output.
        let output = output.filter(|_| delta.gains.is_some_and(|gains| gains.iter().all(|&gain| gain != 0.0)));
        let (y, factors) = match (output, delta.gains) {
            (Some(y), Some(gains)) => (y, gains),
            _ => {
                fit(z, dout.len());
                linear::forward(threads, z, x, linear.matrix, inputs, false);
                linear::forward(threads, z, inner, Matrix::F32(delta.b), delta.rank, true);
                (&z[..], &[][..])
            }
        };
        let mut sums = vec![0.0f64; outputs];
        gains::backward_gains(threads, &mut sums, dout, y);
        let factors = factors.iter().copied().chain(std::iter::repeat(1.0));
        for (((gradient, sum), length), gain) in magnitude.iter_mut().zip(sums).zip(lengths).zip(factors) {
            *gradient += (sum / (f64::from(*length) * f64::from(gain))) as f32;
        }
    }
    let dz = through_gains(threads, dz, dout, &delta);
    if let Some(b) = &mut gradients.b {
        linear::backward_weight(threads, b, dz, inner, delta.rank, accumulate);
    }
    if let Some(a) = &mut gradients.a {
        derivative_of_inner(threads, dinner, dz, &delta);
        linear::backward_weight(threads, a, dinner, left, inputs, accumulate);
    }
}

/// Writes the derivatives by the factors of a change to an embedding table, or adds them if `accumulate`; from that by its output,
/// `dx`, `[ids, dim]`. The id `padding` has no column of A to learn.
pub(crate) fn backward_embeddings(
    threads: &Threads,
    delta: &Delta<'_>,
    gradients: &mut LinearGradients<'_>,
    accumulate: bool,
    (dx, ids, padding): (&[f32], &[u32], Option<u32>),
    scratch: &mut LinearBuffers,
) {
    let (rank, vocabulary) = (delta.rank, delta.a.len() / delta.rank);
    if let Some(b) = &mut gradients.b {
        scratch.inner.clear();
        let factors = |&id: &u32| (0..rank).map(move |r| delta.scale * delta.a[r * vocabulary + id as usize]);
        scratch.inner.extend(ids.iter().flat_map(factors));
        linear::backward_weight(threads, b, dx, &scratch.inner, rank, accumulate);
    }
    if let Some(a) = &mut gradients.a {
        derivative_of_inner(threads, &mut scratch.dinner, dx, delta);
        if !accumulate {
            // Most columns meet no id.
            a.fill(0.0);
        }
        let rows = ids.iter().zip(scratch.dinner.chunks_exact(rank));
        for (&id, dinner) in rows.filter(|&(&id, _)| Some(id) != padding) {
            dinner.iter().enumerate().for_each(|(r, d)| a[r * vocabulary + id as usize] += d);
        }
    }
}

/// `gain dout`, in `buffer` where there are gains.
fn through_gains<'a>(threads: &Threads, buffer: &'a mut Vec<f32>, dout: &'a [f32], delta: &Delta<'_>) -> &'a [f32] {
    let Some(gains) = delta.gains else { return dout };
    fit(buffer, dout.len());
    gains::backward_input(threads, buffer, dout, gains);
    buffer
}

/// `scale B^T dz`, `[N, rank]`, in `dinner`: the derivative by `A x`.
fn derivative_of_inner(threads: &Threads, dinner: &mut Vec<f32>, dz: &[f32], delta: &Delta<'_>) {
    let outputs = delta.b.len() / delta.rank;
    fit(dinner, dz.len() / outputs * delta.rank);
    linear::backward_input(threads, dinner, dz, Matrix::F32(delta.b), delta.rank, false);
    dinner.iter_mut().for_each(|x| *x *= delta.scale);
}
