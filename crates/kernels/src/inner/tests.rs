use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::check::values;
use crate::lanes::with_each;
use crate::quant::{Affine, AffineFormat, BlockFormat, Blocks, Scales, quantise_affine};
use crate::simd::dot;

/// Every kind of matrix that is not packed, `[outputs, inputs]`.
struct Weights {
    inputs: usize,
    single: Vec<f32>,
    half: Vec<f16>,
    brain: Vec<bf16>,
    blocks: Vec<(BlockFormat, Vec<u8>)>,
    affine: (Vec<u8>, Vec<f32>, Vec<f32>),
}

const AFFINE: AffineFormat = AffineFormat { bits: 5, group: 32 };

impl Weights {
    fn new(outputs: usize, inputs: usize) -> Self {
        let single = values(outputs * inputs, 0.2);
        let formats = BlockFormat::ALL.into_iter().filter(|format| inputs.is_multiple_of(format.block_len()));
        let blocks = formats.map(|format| {
            let mut bytes = vec![0; format.bytes_of(single.len()).unwrap()];
            format.quantise(&single, &mut bytes);
            (format, bytes)
        });
        let mut affine = (Vec::new(), Vec::new(), Vec::new());
        if inputs.is_multiple_of(AFFINE.group) {
            affine.0 = vec![0; AFFINE.bytes_of(single.len())];
            (affine.1, affine.2) = quantise_affine(&single, AFFINE, &mut affine.0).into_iter().unzip();
        }
        let half = single.iter().map(|&w| f16::from_f32(w)).collect();
        let brain = single.iter().map(|&w| bf16::from_f32(w)).collect();
        Self { inputs, blocks: blocks.collect(), affine, half, brain, single }
    }

    fn matrices(&self) -> Vec<(String, Matrix<'_>)> {
        let mut all = vec![
            ("f32".into(), Matrix::F32(&self.single)),
            ("f16".into(), Matrix::F16(&self.half)),
            ("bf16".into(), Matrix::BF16(&self.brain)),
        ];
        for (format, bytes) in &self.blocks {
            all.push((format.to_string(), Matrix::Blocks(Blocks { format: *format, bytes })));
        }
        if self.inputs.is_multiple_of(AFFINE.group) {
            let (numbers, scales, biases) = &self.affine;
            let (scales, biases) = (Scales::F32(scales), Scales::F32(biases));
            all.push(("affine".into(), Matrix::Affine(Affine { format: AFFINE, numbers, scales, biases })));
        }
        all
    }
}

/// The product by each instruction set, added to `before`.
fn products(threads: usize, x: &[f32], weight: Matrix<'_>, inputs: usize, before: &[f32]) -> Vec<Vec<f32>> {
    #[derive(Clone)]
    struct Run<'a> {
        threads: &'a Threads,
        x: &'a [f32],
        weight: Matrix<'a>,
        inputs: usize,
        before: &'a [f32],
    }
    impl Kernel for Run<'_> {
        type Output = Vec<f32>;

        fn run<L: Lanes>(self, lanes: L) -> Vec<f32> {
            let Self { threads, x, weight, inputs, before } = self;
            let outputs = weight.len() / inputs;
            let accumulate = !before.is_empty();
            let mut out = if accumulate { before.to_vec() } else { vec![f32::NAN; x.len() / inputs * outputs] };
            let product = Product {
                threads,
                out: &Chunks::new(&mut out, 1),
                x: Rows::Wide(x),
                weight,
                inputs,
                outputs,
                accumulate,
            };
            product.run(lanes);
            out
        }
    }
    let run = Run { threads: &Threads::new(threads), x, weight, inputs, before };
    with_each(&run).into_iter().map(|(_, out)| out).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The inner products in the order that is promised, by plain code, added to `before`.
fn expected(x: &[f32], weight: Matrix<'_>, inputs: usize, before: &[f32]) -> Vec<f32> {
    let mut wide = vec![0.0; weight.len()];
    let wide = weight.widened(0, weight.len(), &mut wide);
    let mut out: Vec<f32> =
        x.chunks_exact(inputs).flat_map(|x| wide.chunks_exact(inputs).map(|w| dot(x, w)).collect::<Vec<_>>()).collect();
    out.iter_mut().zip(before).for_each(|(out, before)| *out += before);
    out
}

fn check(rows: usize, outputs: usize, inputs: usize, threads: usize) {
    let weights = Weights::new(outputs, inputs);
    let x = values(rows * inputs, 0.1);
    for (name, weight) in weights.matrices() {
        for before in [Vec::new(), values(rows * outputs, 0.3)] {
            let expected = bits(&expected(&x, weight, inputs, &before));
            for out in products(threads, &x, weight, inputs, &before) {
                assert_eq!(bits(&out), expected, "{name}, {rows} x {inputs} x {outputs}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn a_row_gives_the_same_bits_alone_and_among_any_others(
        rows in 1usize..60, outputs in 1usize..130, inputs in 1usize..200, threads in 1usize..4,
    ) {
        check(rows, outputs, inputs, threads);
        // Whole blocks, for quantised weights.
        check(rows, outputs, 32 * (1 + inputs % 5), threads);
    }
}

#[test]
fn every_number_of_rows_gives_the_bits_of_the_plain_sums() {
    for rows in 1..=26 {
        check(rows, 75, 256, 2);
    }
}

#[test]
fn no_rows_or_no_outputs_are_no_work() {
    let threads = Threads::single();
    product(&threads, &mut [], &values(20 * 32, 0.1), Matrix::F32(&[]), 32, false);
    product(&threads, &mut [], &[], Matrix::F32(&values(3 * 32, 0.2)), 32, true);
}

#[test]
fn several_slices_blocks_and_tasks_are_put_together() {
    // More than a slice and a rest; more than a block of weights; more rows of `x` than a task has.
    check(20, 30, 2 * SLICE * LANES + 40, 2);
    check(3, 7, 2 * SLICE * LANES + 40, 1);
    check(TASK_ROWS + 5, 120, 36, 3);
}

/// Compares products of `bf16` with those of the plain code, to the bit.
fn check_pairs(rows: usize, outputs: usize, inputs: usize, threads: usize, scale: f32) {
    let brain = |x: Vec<f32>| x.into_iter().map(|x| bf16::from_f32(scale * x)).collect::<Vec<_>>();
    let x = brain(values(rows * inputs, 0.4));
    let half: Vec<f16> = values(outputs * inputs, 0.5).into_iter().map(f16::from_f32).collect();
    check_pairs_of(&x, &brain(values(outputs * inputs, 0.5)), inputs, threads);
    check_pairs_of(&x, &half, inputs, threads);
}

fn check_pairs_of<T: Half>(x: &[bf16], weight: &[T], inputs: usize, threads: usize) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let rounded: Vec<bf16> = weight.iter().map(|w| w.to_bf16()).collect();
    for before in [None, Some(values(rows * outputs, 0.6))] {
        let mut out = before.clone().unwrap_or_else(|| vec![f32::NAN; rows * outputs]);
        product_of_pairs(&Threads::new(threads), &mut out, x, weight, inputs, before.is_some());
        for (i, found) in out.iter().enumerate() {
            let (x, weight) = (&x[i / outputs * inputs..][..inputs], &rounded[i % outputs * inputs..][..inputs]);
            let sum = dot_of_pairs(x, weight);
            let expected = before.as_ref().map_or(sum, |before| before[i] + sum);
            assert_eq!(found.to_bits(), expected.to_bits(), "{rows} x {inputs} x {outputs}: {found}, not {expected}");
        }
    }
}

#[test]
fn every_f16_is_rounded_to_bf16_as_by_the_plain_code() {
    #[derive(Clone)]
    struct Round([f16; 2 * LANES]);
    impl Kernel for Round {
        type Output = [bf16; 2 * LANES];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            f16::round(lanes, &self.0)
        }
    }
    for first in (0..=u16::MAX).step_by(2 * LANES) {
        let halves = std::array::from_fn(|i| f16::from_bits(first + i as u16));
        let with_instruction = with_pairs(Round(halves)).map(|rounded| ("pairs", rounded));
        for (name, rounded) in with_each(&Round(halves)).into_iter().chain(with_instruction) {
            for (half, found) in halves.into_iter().zip(rounded) {
                let expected = bf16::from_f32(half.to_f32());
                let same = found.to_bits() == expected.to_bits() || half.is_nan() && found.is_nan();
                assert!(same, "{name}: {half} gave {found} instead of {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn pairs_give_the_bits_of_the_plain_code(
        rows in 1usize..40, outputs in 1usize..110, inputs in 1usize..300, threads in 1usize..4,
    ) {
        check_pairs(rows, outputs, inputs, threads, 1.0);
        // Products and sums below the normal numbers are zero, on every way.
        check_pairs(rows, outputs, inputs, threads, 1e-19);
    }
}

#[test]
fn pairs_in_several_slices_and_tasks_are_put_together() {
    check_pairs(20, 30, 4 * SLICE * LANES + 41, 2, 1.0);
    check_pairs(TASK_ROWS + 5, 60, 36, 3, 1.0);
}

#[test]
fn products_of_pairs_are_close_to_those_in_single_precision() {
    let (rows, outputs, inputs) = (19, 33, 500);
    let brain = |x: Vec<f32>| x.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    let (x, weight) = (brain(values(rows * inputs, 0.4)), brain(values(outputs * inputs, 0.5)));
    let mut out = vec![0.0; rows * outputs];
    product_of_pairs(&Threads::single(), &mut out, &x, &weight, inputs, false);
    for (i, found) in out.iter().enumerate() {
        let (x, weight) = (&x[i / outputs * inputs..][..inputs], &weight[i % outputs * inputs..][..inputs]);
        let expected: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(x.to_f32()) * f64::from(w.to_f32())).sum();
        assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}
