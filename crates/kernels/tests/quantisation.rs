//! Quantised numbers against those of ggml and MLX themselves.

#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use openelm_kernels::quant::{Affine, AffineFormat, BlockFormat, Scales, quantise_affine};
use openelm_testing::{golden, npz};

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().map(|&x| x as u8).collect()
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn blocks_are_widened_as_ggml_does() {
    let arrays = npz(&golden("gguf/raw_quantize.npz"));
    for format in BlockFormat::ALL {
        let stored = bytes(&arrays[&format!("{format}.bytes")].values);
        let expected = arrays[&format!("{format}.dequantized")].f32();
        let mut found = vec![0.0; expected.len()];
        format.widen(&stored, &mut found);
        assert_eq!(found, expected, "{format}");
    }
}

#[test]
fn small_blocks_are_made_as_ggml_does_to_the_byte() {
    let arrays = npz(&golden("gguf/raw_quantize.npz"));
    let x = arrays["x"].f32();
    for format in BlockFormat::ALL.into_iter().filter(|format| format.block_len() == 32) {
        let expected = bytes(&arrays[&format!("{format}.bytes")].values);
        let mut found = vec![0; expected.len()];
        format.quantise(&x, &mut found);
        assert_eq!(found, expected, "{format}");
    }
}

#[test]
fn k_blocks_are_made_as_near_as_ggml_makes_them() {
    let arrays = npz(&golden("gguf/raw_quantize.npz"));
    let x = arrays["x"].f32();
    for format in [BlockFormat::Q4_K, BlockFormat::Q5_K, BlockFormat::Q6_K] {
        let theirs = squared_error(&arrays[&format!("{format}.dequantized")].f32(), &x);
        let mut stored = vec![0; format.bytes_of(x.len()).unwrap()];
        format.quantise(&x, &mut stored);
        let mut widened = vec![0.0; x.len()];
        format.widen(&stored, &mut widened);
        let ours = squared_error(&widened, &x);
        println!("{format}: squared error {ours:.6}, ggml {theirs:.6}");
        assert!(ours <= theirs, "{format}: {ours} against {theirs}");
    }
}

#[test]
fn blocks_of_zeros_and_of_equal_values_survive() {
    for format in BlockFormat::ALL {
        for value in [0.0, 1.5, -1.5] {
            let values = vec![value; 256];
            let mut stored = vec![0xff; format.bytes_of(256).unwrap()];
            format.quantise(&values, &mut stored);
            let mut widened = vec![f32::NAN; 256];
            format.widen(&stored, &mut widened);
            assert!(widened.iter().all(|x| (x - value).abs() <= 0.02), "{format}, {value}: {:?}", &widened[..4]);
        }
    }
}

#[test]
fn affine_groups_are_made_and_widened_as_mlx_does() {
    let arrays = npz(&golden("mlx/raw_quantize.npz"));
    let x = arrays["w_float32"].f32();
    let mut cases = 0;
    for (name, q) in &arrays {
        let Some((case, "q")) = name.rsplit_once('.') else { continue };
        let [dtype, bits, group] = case.split('.').collect::<Vec<_>>()[..] else { continue };
        let format = AffineFormat::new(bits[1..].parse().unwrap(), group[1..].parse().unwrap()).unwrap();
        let expected: Vec<u8> = q.values.iter().flat_map(|&word| (word as u32).to_le_bytes()).collect();
        let (scales, biases) = (arrays[&format!("{case}.scales")].f32(), arrays[&format!("{case}.biases")].f32());
        let round: fn(f32) -> f32 = match dtype {
            "float16" => |x| f16::from_f32(x).to_f32(),
            "bfloat16" => |x| bf16::from_f32(x).to_f32(),
            _ => |x| x,
        };
        let source: Vec<f32> = x.iter().map(|&x| round(x)).collect();
        let mut numbers = vec![0; expected.len()];
        let groups = quantise_affine(&source, format, &mut numbers);
        let same = groups.iter().zip(scales.iter().zip(&biases)).all(|(a, b)| (round(a.0), round(a.1)) == (*b.0, *b.1));
        assert!(same, "{case}: scales or biases");
        let differing = numbers.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(numbers == expected, "{case}: {differing} bytes of {}", expected.len());
        if let Some(widened) = arrays.get(&format!("{case}.dequantized")) {
            let halves: Vec<f16> = scales.iter().chain(&biases).map(|&x| f16::from_f32(x)).collect();
            let brains: Vec<bf16> = scales.iter().chain(&biases).map(|&x| bf16::from_f32(x)).collect();
            let count = scales.len();
            let (scales, biases) = match dtype {
                "float16" => (Scales::F16(&halves[..count]), Scales::F16(&halves[count..])),
                "bfloat16" => (Scales::BF16(&brains[..count]), Scales::BF16(&brains[count..])),
                _ => (Scales::F32(&scales), Scales::F32(&biases)),
            };
            let affine = Affine { format, numbers: &numbers, scales, biases };
            let mut found = vec![0.0; x.len()];
            affine.dequantise(0, &mut found);
            assert_eq!(found, widened.f32(), "{case}");
            // Without rounding they are near: one unit of the last place of the largest product and sum.
            let mut near = vec![0.0; x.len()];
            affine.widen(0, &mut near);
            let unit = [("float32", 0.0), ("float16", 2f32.powi(-10)), ("bfloat16", 2f32.powi(-7))];
            let unit = unit.iter().find(|(name, _)| *name == dtype).unwrap().1;
            let tolerance = unit * x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
            let largest = openelm_testing::max_difference(&found, &near);
            assert!(largest <= tolerance, "{case}: {largest}");
        }
        cases += 1;
    }
    assert_eq!(cases, 54);
}
