//! Blocks of 256 values with sub-blocks whose scales are quantised in turn: Q4_K, Q5_K and Q6_K of ggml.
//!
//! ```text
//! Q4_K  d: f16, m: f16, 12 bytes: 8 scales and 8 minima of 6 bits, 128 bytes: nibbles
//! Q5_K  the same, with 32 bytes of fifth bits before the nibbles; bit j of byte l belongs to value 32 j + l
//! Q6_K  128 bytes: low nibbles, 64 bytes: upper pairs of bits, 16 signed bytes: scales, d: f16
//! ```
//! In Q4_K and Q5_K `x = d scale[j] q - m minimum[j]`, in Q6_K `x = d scale[j] (q - 32)`.

use super::{half_at, put_half};

/// Values in a block.
const LEN: usize = 256;

/// Scale and minimum of sub-block `j`, 6 bits each: the first four plain, the last four in nibbles whose upper pairs are in
/// the spare bits of the first four.
#[inline(always)]
pub(super) fn scale_and_minimum(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

pub(super) fn put_scales_and_minima(packed: &mut [u8], scales: &[u8; 8], minima: &[u8; 8]) {
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4;
    }
}

#[inline(always)]
pub(super) fn widen_q4_k(block: &[u8], out: &mut [f32]) {
    widen_with_minima(block, &block[16..144], out, |_, _| 0);
}

#[inline(always)]
pub(super) fn widen_q5_k(block: &[u8], out: &mut [f32]) {
    let high = &block[16..48];
    widen_with_minima(block, &block[48..176], out, |j, l| (high[l] >> j & 1) << 4);
}

#[inline(always)]
fn widen_with_minima(block: &[u8], nibbles: &[u8], out: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, m) = (half_at(block), half_at(&block[2..]));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], j);
        let (d, m) = (d * f32::from(scale), m * f32::from(minimum));
        let nibbles = &nibbles[j / 2 * 32..][..32];
        for (l, (out, &byte)) in out.iter_mut().zip(nibbles).enumerate() {
            let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            *out = d * f32::from(q | fifth(j, l)) - m;
        }
    }
}

#[inline(always)]
pub(super) fn widen_q6_k(block: &[u8], out: &mut [f32]) {
    let d = half_at(&block[208..]);
    for (half, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
        let scales = &block[192 + 8 * half..][..8];
        for (quarter, out) in out.chunks_exact_mut(32).enumerate() {
            for (l, out) in out.iter_mut().enumerate() {
                let nibble = low[quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
                let q = nibble | (high[l] >> (2 * quarter) & 3) << 4;
                *out = d * f32::from(scales[2 * quarter + l / 16] as i8) * (f32::from(q) - 32.0);
            }
        }
    }
}

/// The numbers of a block before any scale, in order.
pub(super) fn numbers_q4_k(block: &[u8], out: &mut [u8]) {
    numbers(&block[16..144], out, |_, _| 0);
}

pub(super) fn numbers_q5_k(block: &[u8], out: &mut [u8]) {
    numbers(&block[48..176], out, |j, l| (block[16 + l] >> j & 1) << 4);
}

fn numbers(nibbles: &[u8], out: &mut [u8], fifth: impl Fn(usize, usize) -> u8) {
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        for (l, out) in out.iter_mut().enumerate() {
            *out = nibbles[j / 2 * 32 + l] >> (j % 2 * 4) & 15 | fifth(j, l);
        }
    }
}

pub(super) fn numbers_q6_k(block: &[u8], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = block[64 * half + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        *out = nibble | (block[128 + 32 * half + l] >> (2 * quarter) & 3) << 4;
    }
}

pub(super) fn quantise_q4_k(values: &[f32], block: &mut [u8]) {
    quantise_with_minima(values, block, 15, put_q4_k);
}

pub(super) fn quantise_q5_k(values: &[f32], block: &mut [u8]) {
    quantise_with_minima(values, block, 31, put_q5_k);
}

/// Puts the numbers of a block in their places: the other way round than [`numbers_q5_k`].
pub(super) fn put_q5_k(block: &mut [u8], q: &[u8]) {
    let (high, nibbles) = block[16..176].split_at_mut(32);
    high.fill(0);
    for (i, q) in q.iter().enumerate() {
        high[i % 32] |= (q >> 4) << (i / 32);
    }
    put_nibbles(nibbles, q);
}

pub(super) fn put_q4_k(block: &mut [u8], q: &[u8]) {
    put_nibbles(&mut block[16..144], q);
}

fn put_nibbles(nibbles: &mut [u8], q: &[u8]) {
    for (i, byte) in nibbles.iter_mut().enumerate() {
        let (first, l) = (i / 32 * 64, i % 32);
        *byte = q[first + l] & 15 | (q[first + 32 + l] & 15) << 4;
    }
}

/// Scales and minima of the 8 sub-blocks, both rounded to 6 bits, then the values with what they became.
fn quantise_with_minima(values: &[f32], block: &mut [u8], levels: u8, put: impl Fn(&mut [u8], &[u8])) {
    let mut scales = [0.0f32; 8];
    let mut minima = [0.0f32; 8];
    for (j, values) in values.chunks_exact(32).enumerate() {
        (scales[j], minima[j]) = best_scale_and_minimum(values, levels);
    }
    let largest = |values: &[f32; 8]| values.iter().fold(0.0f32, |a, &b| a.max(b));
    put_half(block, largest(&scales) / 63.0);
    put_half(&mut block[2..], largest(&minima) / 63.0);
    let (d, m) = (half_at(block), half_at(&block[2..]));
    let quantised = |x: f32, scale: f32, minimum: f32| {
        if scale > 0.0 { ((x + minimum) / scale).round().clamp(0.0, f32::from(levels)) } else { 0.0 }
    };
    let mut rounded = ([0; 8], [0; 8]);
    let mut q = [0; LEN];
    for (j, (values, q)) in values.chunks_exact(32).zip(q.chunks_exact_mut(32)).enumerate() {
        // Rounding to 6 bits moves both; a neighbour of the nearest pair may serve better.
        let mut best = f32::INFINITY;
        for scale_bits in neighbours(scales[j], d) {
            for minimum_bits in neighbours(minima[j], m) {
                let (scale, minimum) = (d * f32::from(scale_bits), m * f32::from(minimum_bits));
                let error = |&x: &f32| (scale * quantised(x, scale, minimum) - minimum - x).powi(2);
                let error = values.iter().map(error).sum();
                if error < best {
                    best = error;
                    (rounded.0[j], rounded.1[j]) = (scale_bits, minimum_bits);
                }
            }
        }
        let (scale, minimum) = (d * f32::from(rounded.0[j]), m * f32::from(rounded.1[j]));
        q.iter_mut().zip(values).for_each(|(q, &x)| *q = quantised(x, scale, minimum) as u8);
    }
    put_scales_and_minima(&mut block[4..16], &rounded.0, &rounded.1);
    put(block, &q);
}

/// The numbers of 6 bits around `value / unit`.
fn neighbours(value: f32, unit: f32) -> std::ops::RangeInclusive<u8> {
    let nearest = if unit > 0.0 { (value / unit).round().min(63.0) as u8 } else { 0 };
    nearest.saturating_sub(1)..=(nearest + 1).min(63)
}

/// The `(scale, minimum)`, both at least 0, of nearly least squared error of `x = scale q - minimum`, `q` in `0..=levels`.
///
/// Tries ranges a little narrower than that of the values, and fits a line to the numbers each of them gives.
fn best_scale_and_minimum(values: &[f32], levels: u8) -> (f32, f32) {
    const CANDIDATES: usize = 24;
    let levels = f32::from(levels);
    let low = values.iter().fold(0.0f32, |a, &b| a.min(b));
    let high = values.iter().fold(f32::MIN, |a, &b| a.max(b));
    if high <= low {
        return (0.0, -low);
    }
    let count = values.len() as f32;
    let sum_x: f32 = values.iter().sum();
    let mut best = (f32::INFINITY, (high - low) / levels, -low);
    for candidate in 0..CANDIDATES {
        let inverse = (levels - 1.0 + 0.1 * candidate as f32) / (high - low);
        let q = |x: f32| ((x - low) * inverse).round().clamp(0.0, levels);
        let (mut sum_q, mut sum_qq, mut sum_qx) = (0.0, 0.0, 0.0);
        for &x in values {
            let q = q(x);
            (sum_q, sum_qq, sum_qx) = (sum_q + q, sum_qq + q * q, sum_qx + q * x);
        }
        let determinant = count * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (count * sum_qx - sum_q * sum_x) / determinant;
        let mut minimum = (scale * sum_q - sum_x) / count;
        // A minimum above zero cannot be stored: the line then goes through the origin.
        if minimum < 0.0 {
            (scale, minimum) = (sum_qx / sum_qq, 0.0);
        }
        let error: f32 = values.iter().map(|&x| (scale * q(x) - minimum - x).powi(2)).sum();
        if scale > 0.0 && error < best.0 {
            best = (error, scale, minimum);
        }
    }
    (best.1, best.2)
}

pub(super) fn quantise_q6_k(values: &[f32], block: &mut [u8]) {
    let mut scales = [0.0f32; 16];
    for (scale, values) in scales.iter_mut().zip(values.chunks_exact(16)) {
        *scale = best_symmetric_scale(values);
    }
    let largest = scales.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    let inverse = if largest == 0.0 { 0.0 } else { -128.0 / largest };
    let rounded = scales.map(|scale| (scale * inverse).round().clamp(-128.0, 127.0) as i8);
    put_half(&mut block[208..], if largest == 0.0 { 0.0 } else { 1.0 / inverse });
    let d = half_at(&block[208..]);
    block[192..208].iter_mut().zip(rounded).for_each(|(byte, scale)| *byte = scale as u8);
    let q = std::array::from_fn::<u8, LEN, _>(|i| {
        let d = d * f32::from(rounded[i / 16]);
        if d == 0.0 { 32 } else { ((values[i] / d).round().clamp(-32.0, 31.0) + 32.0) as u8 }
    });
    put_q6_k(block, &q);
}

/// Puts the numbers of a block in their places: the other way round than [`numbers_q6_k`].
pub(super) fn put_q6_k(block: &mut [u8], q: &[u8]) {
    block[..192].fill(0);
    for (i, q) in q.iter().enumerate() {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        block[64 * half + quarter % 2 * 32 + l] |= (q & 15) << (quarter / 2 * 4);
        block[128 + 32 * half + l] |= q >> 4 << (2 * quarter);
    }
}

/// The scale of nearly least squared error of `x = scale q`, `q` in `-32..=31`. It may be negative, which gives the value of
/// the largest magnitude the longer side.
fn best_symmetric_scale(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    // Below this a block is nothing but zeros in half precision.
    if largest.abs() < 1e-15 {
        return 0.0;
    }
    let mut best = (0.0f32, 0.0f32);
    for candidate in -9i8..=9 {
        let inverse = -(32.0 + 0.1 * f32::from(candidate)) / largest;
        let (mut sum_qx, mut sum_qq) = (0.0, 0.0);
        for &x in values {
            let q = (x * inverse).round().clamp(-32.0, 31.0);
            (sum_qx, sum_qq) = (sum_qx + q * x, sum_qq + q * q);
        }
        // The squared error is that of zeros less this.
        let gain = if sum_qq > 0.0 { sum_qx * sum_qx / sum_qq } else { 0.0 };
        if gain > best.0 {
            best = (gain, sum_qx / sum_qq);
        }
    }
    best.1
}
