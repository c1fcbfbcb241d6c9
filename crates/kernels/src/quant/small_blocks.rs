//! Blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, widened and made as ggml's reference does.
//!
//! ```text
//! Q4_0  d: f16             16 bytes: value i in the low, value i + 16 in the high nibble of byte i
//! Q4_1  d: f16, m: f16     the same
//! Q5_0  d: f16             4 bytes: bit i is the fifth bit of value i; then as Q4_0
//! Q5_1  d: f16, m: f16     the same
//! Q8_0  d: f16             32 signed bytes
//! ```

use super::{half_at, put_half};

/// Values in a block.
const LEN: usize = 32;

#[inline(always)]
pub(super) fn widen_q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block);
    widen_nibbles(&block[2..18], out, |q, _| (f32::from(q) - 8.0) * d);
}

#[inline(always)]
pub(super) fn widen_q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block), half_at(&block[2..]));
    widen_nibbles(&block[4..20], out, |q, _| f32::from(q) * d + m);
}

#[inline(always)]
pub(super) fn widen_q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half_at(block), high_bits(&block[2..6]));
    widen_nibbles(&block[6..22], out, |q, i| (f32::from(q | fifth(high, i)) - 16.0) * d);
}

#[inline(always)]
pub(super) fn widen_q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half_at(block), half_at(&block[2..]), high_bits(&block[4..8]));
    widen_nibbles(&block[8..24], out, |q, i| f32::from(q | fifth(high, i)) * d + m);
}

#[inline(always)]
pub(super) fn widen_q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block);
    out.iter_mut().zip(&block[2..34]).for_each(|(out, &q)| *out = f32::from(q as i8) * d);
}

/// The numbers of a block before any scale, in order; those of Q8_0 are raised by 128, so that none is negative.
pub(super) fn numbers_q4(nibbles: &[u8], out: &mut [u8]) {
    widen_nibbles(nibbles, out, |q, _| q);
}

pub(super) fn numbers_q5(high: &[u8], nibbles: &[u8], out: &mut [u8]) {
    let high = high_bits(high);
    widen_nibbles(nibbles, out, |q, i| q | fifth(high, i));
}

pub(super) fn numbers_q8_0(block: &[u8], out: &mut [u8]) {
    out.iter_mut().zip(&block[2..34]).for_each(|(out, &q)| *out = q ^ 128);
}

/// Puts the numbers of a block in their places: the other way round than [`numbers_q4`] and [`numbers_q5`].
pub(super) fn put_numbers(numbers: &[u8], bytes: &mut [u8], five: bool) {
    put_values(numbers, bytes, five, |q| q);
}

pub(super) fn put_numbers_q8_0(numbers: &[u8], block: &mut [u8]) {
    block[2..34].iter_mut().zip(numbers).for_each(|(q, number)| *q = number ^ 128);
}

/// `out[i] = value(nibble i, i)`.
#[inline(always)]
fn widen_nibbles<T>(bytes: &[u8], out: &mut [T], value: impl Fn(u8, usize) -> T) {
    let (low, high) = out.split_at_mut(LEN / 2);
    for (i, ((low, high), &byte)) in low.iter_mut().zip(high).zip(bytes).enumerate() {
        *low = value(byte & 15, i);
        *high = value(byte >> 4, i + LEN / 2);
    }
}

fn high_bits(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The fifth bit of value `i`, in its place.
#[inline(always)]
fn fifth(high: u32, i: usize) -> u8 {
    ((high >> i & 1) as u8) << 4
}

pub(super) fn quantise_q4_0(values: &[f32], block: &mut [u8]) {
    let d = largest(values) / -8.0;
    let inverse = inverse(d);
    put_half(block, d);
    put_values(values, &mut block[2..], false, |x| ((x * inverse + 8.5) as i8).min(15) as u8);
}

pub(super) fn quantise_q4_1(values: &[f32], block: &mut [u8]) {
    let (minimum, maximum) = range(values);
    let d = (maximum - minimum) / 15.0;
    let inverse = inverse(d);
    put_half(block, d);
    put_half(&mut block[2..], minimum);
    put_values(values, &mut block[4..], false, |x| (((x - minimum) * inverse + 0.5) as i8).min(15) as u8);
}

pub(super) fn quantise_q5_0(values: &[f32], block: &mut [u8]) {
    let d = largest(values) / -16.0;
    let inverse = inverse(d);
    put_half(block, d);
    put_values(values, &mut block[2..], true, |x| ((x * inverse + 16.5) as i8).min(31) as u8);
}

pub(super) fn quantise_q5_1(values: &[f32], block: &mut [u8]) {
    let (minimum, maximum) = range(values);
    let d = (maximum - minimum) / 31.0;
    let inverse = inverse(d);
    put_half(block, d);
    put_half(&mut block[2..], minimum);
    put_values(values, &mut block[4..], true, |x| ((x - minimum) * inverse + 0.5) as u8);
}

pub(super) fn quantise_q8_0(values: &[f32], block: &mut [u8]) {
    let d = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 127.0;
    let inverse = inverse(d);
    put_half(block, d);
    block[2..].iter_mut().zip(values).for_each(|(q, x)| *q = (x * inverse).round() as i8 as u8);
}

/// The first value of the largest magnitude, with its sign.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |largest, &x| if x.abs() > largest.abs() { x } else { largest })
}

fn range(values: &[f32]) -> (f32, f32) {
    values
        .iter()
        .fold((f32::MAX, f32::MIN), |(low, high), &x| (if x < low { x } else { low }, if x > high { x } else { high }))
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Packs `quantised(x)` of all values as nibbles, behind their fifth bits if they have five.
fn put_values<T: Copy>(values: &[T], bytes: &mut [u8], five: bool, quantised: impl Fn(T) -> u8) {
    let (high_bits, nibbles) = bytes.split_at_mut(if five { 4 } else { 0 });
    let mut high = 0u32;
    for (i, nibble) in nibbles.iter_mut().enumerate() {
        let (a, b) = (quantised(values[i]), quantised(values[i + LEN / 2]));
        *nibble = a & 15 | (b & 15) << 4;
        high |= u32::from(a >> 4 & 1) << i | u32::from(b >> 4 & 1) << (i + LEN / 2);
    }
    if five {
        high_bits.copy_from_slice(&high.to_le_bytes());
    }
}
