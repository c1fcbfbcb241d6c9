use proptest::prelude::*;

use super::*;
use crate::check::values;
use crate::quant::{Affine, AffineFormat, BlockFormat, Blocks, Scales, quantise_affine};
use crate::swiglu::{Activation, FeedForward};
use crate::{Matrix, Norm};

/// A quantised matrix of some format and the bytes it lies in.
struct Quantised {
    format: Format,
    bytes: Vec<u8>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Blocks(BlockFormat),
    Affine(AffineFormat),
}

impl Quantised {
    fn new(format: Format, values: &[f32]) -> Self {
        let (mut bytes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        match format {
            Format::Blocks(format) => {
                bytes.resize(format.bytes_of(values.len()).unwrap(), 0);
                format.quantise(values, &mut bytes);
            }
            Format::Affine(format) => {
                bytes.resize(format.bytes_of(values.len()), 0);
                (scales, biases) = quantise_affine(values, format, &mut bytes).into_iter().unzip();
            }
        }
        Self { format, bytes, scales, biases }
    }

    fn matrix(&self) -> Matrix<'_> {
        match self.format {
            Format::Blocks(format) => Matrix::Blocks(Blocks { format, bytes: &self.bytes }),
            Format::Affine(format) => Matrix::Affine(Affine {
                format,
                numbers: &self.bytes,
                scales: Scales::F32(&self.scales),
                biases: Scales::F32(&self.biases),
            }),
        }
    }
}

/// All formats that there are kernels for, with the columns that their rows are a multiple of.
fn formats() -> Vec<(Format, usize)> {
    let blocks = BlockFormat::ALL.map(|format| (Format::Blocks(format), format.block_len()));
    let affine = [4, 5, 6, 8]
        .into_iter()
        .flat_map(|bits| [32, 64, 128].map(|group| (Format::Affine(AffineFormat::new(bits, group).unwrap()), group)));
    blocks.into_iter().chain(affine).collect()
}

/// `x` rounded to 8 bits in groups of 32, by plain code.
fn rounded(x: &[f32]) -> Vec<f64> {
    let group = |x: &[f32]| {
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let (scale, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
        x.iter().map(|x| f64::from((x * inverse).round_ties_even()) * f64::from(scale)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(group).collect()
}

fn run(set: InstructionSet, threads: usize, x: &[f32], packed: &Packed, before: f32) -> Vec<f32> {
    let mut out = vec![before; x.len() / packed.columns() * packed.rows()];
    let input = Input::Rows { x, inputs: packed.columns() };
    product_with(set, &Threads::new(threads), &mut out, input, packed, before != 0.0);
    out
}

#[test]
fn packing_keeps_every_weight_to_the_bit() {
    for (format, unit) in formats() {
        let (rows, columns) = (37, 3 * unit);
        let quantised = Quantised::new(format, &values(rows * columns, 0.3));
        let packed = Packed::new(&Threads::new(2), quantised.matrix(), columns).unwrap().unwrap();
        assert_eq!(Matrix::Packed(&packed).to_f32(), quantised.matrix().to_f32(), "{format:?}");
    }
}

#[test]
fn panels_are_borrowed_as_they_are_and_become_the_same_blocks_again() {
    for format in BlockFormat::ALL {
        let (rows, columns) = (37, 3 * format.block_len());
        let quantised = Quantised::new(Format::Blocks(format), &values(rows * columns, 0.3));
        let packed = Packed::new(&Threads::new(2), quantised.matrix(), columns).unwrap().unwrap();
        assert_eq!(Packed::size_of(format, rows, columns), Some(packed.size()));
        let panels = packed.panels().to_vec();
        let (cut, address) = (panels[1..].to_vec(), panels.as_ptr());
        assert!(Packed::from_panels(format, rows, columns, cut).is_none());
        let borrowed = Packed::from_panels(format, rows, columns, panels).unwrap();
        assert_eq!(borrowed.panels().as_ptr(), address, "{format}: a copy was made");
        assert_eq!(Matrix::Packed(&borrowed).to_f32(), quantised.matrix().to_f32(), "{format}");
        assert_eq!(borrowed.unpacked(format), quantised.bytes, "{format}");
        let x = values(2 * columns, 1.0);
        let [own, others] = [&packed, &borrowed].map(|packed| run(InstructionSet::best(), 1, &x, packed, 0.0));
        assert_eq!(own, others, "{format}");
    }
    assert_eq!(Packed::size_of(BlockFormat::Q4_K, 16, 128), None);
    assert_eq!(Packed::size_of(BlockFormat::Q4_0, usize::MAX, usize::MAX / 32 * 32), None);
}

#[test]
fn formats_without_kernels_are_left_as_they_are() {
    let format = Format::Affine(AffineFormat::new(3, 64).unwrap());
    let quantised = Quantised::new(format, &values(64, 0.1));
    assert!(Packed::new(&Threads::single(), quantised.matrix(), 64).unwrap().is_none());
    assert!(Packed::new(&Threads::single(), Matrix::F32(&[0.0]), 1).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn products_are_those_of_the_rounded_activations(
        rows in 1usize..20, outputs in 1usize..70, units in 1usize..6, seed in 0.0f32..9.0,
    ) {
        for (format, unit) in formats() {
            let columns = units * unit;
            let quantised = Quantised::new(format, &values(outputs * columns, seed));
            let packed = Packed::new(&Threads::single(), quantised.matrix(), columns).unwrap().unwrap();
            let x = values(rows * columns, seed + 0.5);
            let found = run(InstructionSet::Scalar, 1, &x, &packed, 0.0);
            let (weights, x_rounded) = (quantised.matrix().to_f32(), rounded(&x));
            for (i, &found) in found.iter().enumerate() {
                let (w, a) = (&weights[i % outputs * columns..][..columns], &x_rounded[i / outputs * columns..][..columns]);
                let terms = w.iter().zip(a).map(|(&w, &a)| f64::from(w) * a);
                let (expected, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                // Exact sums of 32 terms, then roundings to f32.
                prop_assert!((f64::from(found) - expected).abs() <= 2e-6 * (1.0 + size), "{format:?}: {found} instead of {expected}");
            }
            let twice = run(InstructionSet::Scalar, 1, &x, &packed, 1.0);
            prop_assert!(found.iter().zip(&twice).all(|(a, b)| a + 1.0 == *b), "{format:?} added");
            for set in InstructionSet::available() {
                prop_assert_eq!(&run(set, 1, &x, &packed, 0.0), &found, "{:?} on {:?}", format, set);
                prop_assert_eq!(&run(set, 3, &x, &packed, 0.0), &found, "{:?} on {:?} with threads", format, set);
            }
            // A row alone, as in decoding, gives the bits that it gives among others.
            for row in 0..rows {
                let alone = run(InstructionSet::best(), 2, &x[row * columns..][..columns], &packed, 0.0);
                prop_assert_eq!(&alone[..], &found[row * outputs..][..outputs]);
            }
        }
    }
}

#[test]
fn extremes_do_not_overflow() {
    for (format, unit) in formats() {
        let columns = 4 * unit;
        let values: Vec<f32> = (0..columns).map(|i| if i % 3 == 0 { -4.0 } else { 4.0 }).collect();
        let quantised = Quantised::new(format, &values);
        let packed = Packed::new(&Threads::single(), quantised.matrix(), columns).unwrap().unwrap();
        let weights = quantised.matrix().to_f32();
        for x in [vec![1e30; columns], vec![-1e-3; columns], vec![0.0; columns]] {
            let expected: f64 = weights.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let size: f64 = weights.iter().zip(&x).map(|(&w, &x)| (f64::from(w) * f64::from(x)).abs()).sum();
            for set in InstructionSet::available() {
                let found = f64::from(run(set, 1, &x, &packed, 0.0)[0]);
                assert!(
                    (found - expected).abs() <= 1e-5 * size,
                    "{format:?} on {set:?}: {found} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn inputs_computed_on_the_way_give_the_bits_of_those_computed_before() {
    let threads = Threads::new(2);
    let (inner, outputs) = (96, 20);
    let quantised = Quantised::new(Format::Blocks(BlockFormat::Q4_0), &values(outputs * inner, 0.2));
    let packed = Packed::new(&threads, quantised.matrix(), inner).unwrap().unwrap();
    for rows in [1, 7] {
        let (x, weight, hidden) = (values(rows * inner, 0.3), values(inner, 0.4), values(rows * 2 * inner, 0.5));
        let network = FeedForward { activation: Activation::Swish, gated: true, inner };
        let normed = Input::Normed { x: &x, norm: Norm::Rms { weight: &weight, eps: 1e-6 } };
        let gated = Input::Gated { hidden: &hidden, network };
        for input in [normed, gated] {
            let (mut fused, mut apart) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
            product(&threads, &mut fused, input, &packed, false);
            let mut buffer = Vec::new();
            let before = Input::Rows { x: input.rows(&threads, &mut buffer), inputs: inner };
            product(&threads, &mut apart, before, &packed, false);
            assert_eq!(fused, apart, "{rows} rows");
        }
    }
}
