//! The key/value cache of a layer.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::tile::Tile;
use super::{KEYS, padded};
use crate::Threads;
use crate::cache_line::CacheLine;
use crate::lanes::{Element, Lanes};
use crate::simd::dispatch;

/// How the keys and values in a cache are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// 8-bit integers with one `f32` scale for each key and each value of a head.
    Int8,
}

impl std::fmt::Display for CacheType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Int8 => "int8",
        })
    }
}

/// Keys (normalised and rotated) and values of one sequence in one layer, in pages of 64 tokens.
///
/// A clone shares the pages: sequences with the same beginning hold it once. Whoever appends to a page that others hold as
/// well copies it first.
#[derive(Debug, Clone)]
pub struct KvCache {
    cache_type: CacheType,
    kv_heads: usize,
    head_dim: usize,
    tokens: usize,
    pages: Vec<Arc<Page>>,
}

/// The memory of one [`Tile`] for each head, one after the other: keys, values, scales.
type Page = Vec<CacheLine>;

impl KvCache {
    /// An empty cache.
    pub fn new(cache_type: CacheType, kv_heads: usize, head_dim: usize) -> Self {
        Self { cache_type, kv_heads, head_dim, tokens: 0, pages: Vec::new() }
    }

    /// Bytes that the cache of `tokens` tokens takes, in whole pages; no more than there are numbers for.
    pub fn bytes(cache_type: CacheType, kv_heads: usize, head_dim: usize, tokens: usize) -> usize {
        let lines = match cache_type {
            CacheType::F32 => Lines::of::<f32>(head_dim),
            CacheType::F16 => Lines::of::<f16>(head_dim),
            CacheType::Int8 => Lines::of::<i8>(head_dim),
        };
        tokens.div_ceil(KEYS).saturating_mul(kv_heads).saturating_mul(lines.count() * CacheLine::BYTES)
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether there are no tokens in the cache.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// How keys and values are stored.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Elements per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Forgets all tokens from position `tokens` on; does nothing if there are fewer.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        self.pages.truncate(self.tokens.div_ceil(KEYS));
    }

    /// Appends `rows` tokens. `read(row, head, key)` writes the key to `key` and gives the value, `[head_dim]` both; it is
    /// inlined into code for this processor.
    pub(crate) fn append<'v>(
        &mut self,
        threads: &Threads,
        rows: usize,
        read: impl Fn(usize, usize, &mut [f32]) -> &'v [f32] + Sync,
    ) {
        match self.cache_type {
            CacheType::F32 => self.append_as::<f32>(threads, rows, read),
            CacheType::F16 => self.append_as::<f16>(threads, rows, read),
            CacheType::Int8 => self.append_as::<i8>(threads, rows, read),
        }
    }

    fn append_as<'v, T: CacheElement>(
        &mut self,
        threads: &Threads,
        rows: usize,
        read: impl Fn(usize, usize, &mut [f32]) -> &'v [f32] + Sync,
    ) {
        let (first, last, d) = (self.tokens, self.tokens + rows, self.head_dim);
        let lines = Lines::of::<T>(d);
        let empty = || Arc::new(bytemuck::zeroed_vec(lines.count() * self.kv_heads));
        self.pages.resize_with(last.div_ceil(KEYS), empty);
        let first_page = first / KEYS;
        threads.for_each_chunk(&mut self.pages[first_page..], 1, |task, page| {
            let start = (first_page + task) * KEYS;
            let page = Arc::make_mut(&mut page[0]);
            let (mut key, mut narrow) = (vec![0.0; d], vec![T::zeroed(); d]);
            dispatch(
                #[inline(always)]
                || {
                    for (head, tile) in page.chunks_exact_mut(lines.count()).enumerate() {
                        let (keys, rest) = tile.split_at_mut(lines.keys);
                        let (values, scales) = rest.split_at_mut(lines.values);
                        let (keys, values): (&mut [T], &mut [T]) =
                            (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
                        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
                        for token in first.max(start)..last.min(start + KEYS) {
                            let column = token - start;
                            let value = read(token - first, head, &mut key);
                            let key_scale = T::narrow(&mut narrow, &key);
                            for (row, &x) in keys.chunks_exact_mut(KEYS).zip(&narrow) {
                                row[column] = x;
                            }
                            let value_scale = T::narrow(&mut values[column * padded(d)..][..d], value);
                            if T::SCALED {
                                scales[column] = key_scale;
                                scales[KEYS + column] = value_scale;
                            }
                        }
                    }
                },
            );
        });
        self.tokens = last;
    }

    /// The tile of a page and a head, for a cache of `T`.
    #[inline(always)]
    pub(super) fn tile<T: CacheElement>(&self, page: usize, head: usize) -> Tile<'_, T> {
        let lines = Lines::of::<T>(self.head_dim);
        let (keys, rest) = self.pages[page][head * lines.count()..][..lines.count()].split_at(lines.keys);
        let (values, scales) = rest.split_at(lines.values);
        let scales: &[[f32; KEYS]] = bytemuck::cast_slice(scales);
        Tile {
            keys: bytemuck::cast_slice(keys),
            values: bytemuck::cast_slice(values),
            scales: if T::SCALED { Some([&scales[0], &scales[1]]) } else { None },
        }
    }
}

/// Cache lines of the parts of a tile.
#[derive(Clone, Copy)]
struct Lines {
    keys: usize,
    values: usize,
    scales: usize,
}

impl Lines {
    #[inline(always)]
    fn of<T: CacheElement>(head_dim: usize) -> Self {
        let lines = |elements: usize, size: usize| elements * size / CacheLine::BYTES;
        Self {
            keys: lines(head_dim * KEYS, size_of::<T>()),
            values: lines(KEYS * padded(head_dim), size_of::<T>()),
            scales: if T::SCALED { lines(2 * KEYS, size_of::<f32>()) } else { 0 },
        }
    }

    /// Cache lines of a tile.
    fn count(self) -> usize {
        self.keys + self.values + self.scales
    }
}

/// An element of a cache.
pub(super) trait CacheElement: Element {
    /// Whether each key and each value has a scale.
    const SCALED: bool;

    /// Stores `x` in `to` and gives the scale.
    fn narrow(to: &mut [Self], x: &[f32]) -> f32;

    /// The tile in `f32`, in `buffer` where it is anything else.
    fn widened<'a, L: Lanes>(lanes: L, tile: Tile<'a, Self>, buffer: &'a mut Vec<CacheLine>) -> Tile<'a, f32>;
}

impl CacheElement for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    fn narrow(to: &mut [Self], x: &[f32]) -> f32 {
        to.copy_from_slice(x);
        1.0
    }

    #[inline(always)]
    fn widened<'a, L: Lanes>(_: L, tile: Tile<'a, Self>, _: &'a mut Vec<CacheLine>) -> Tile<'a, f32> {
        tile
    }
}

impl CacheElement for f16 {
    const SCALED: bool = false;

    #[inline(always)]
    fn narrow(to: &mut [Self], x: &[f32]) -> f32 {
        to.convert_from_f32_slice(x);
        1.0
    }

    #[inline(always)]
    fn widened<'a, L: Lanes>(lanes: L, tile: Tile<'a, Self>, buffer: &'a mut Vec<CacheLine>) -> Tile<'a, f32> {
        tile.widened(lanes, buffer)
    }
}

impl CacheElement for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    fn narrow(to: &mut [Self], x: &[f32]) -> f32 {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (to, x) in to.iter_mut().zip(x) {
            *to = (x * factor).round_ties_even() as i8;
        }
        largest / 127.0
    }

    #[inline(always)]
    fn widened<'a, L: Lanes>(lanes: L, tile: Tile<'a, Self>, buffer: &'a mut Vec<CacheLine>) -> Tile<'a, f32> {
        tile.widened(lanes, buffer)
    }
}

#[cfg(test)]
impl KvCache {
    /// The keys and the values, `[tokens, kv_heads * head_dim]` each.
    pub(crate) fn stored(&self) -> (Vec<f32>, Vec<f32>) {
        match self.cache_type {
            CacheType::F32 => self.stored_as::<f32>(|x| x),
            CacheType::F16 => self.stored_as::<f16>(f16::to_f32),
            CacheType::Int8 => self.stored_as::<i8>(f32::from),
        }
    }

    fn stored_as<T: CacheElement>(&self, wide: impl Fn(T) -> f32) -> (Vec<f32>, Vec<f32>) {
        let elements = (0..self.tokens * self.kv_heads * self.head_dim).map(|index| {
            let (i, row) = (index % self.head_dim, index / self.head_dim);
            let (head, token) = (row % self.kv_heads, row / self.kv_heads);
            let (tile, column) = (self.tile::<T>(token / KEYS, head), token % KEYS);
            let [key_scale, value_scale] = tile.scales.map_or([1.0; 2], |scales| scales.map(|scales| scales[column]));
            let (key, value) = (tile.keys[i * KEYS + column], tile.values[column * padded(self.head_dim) + i]);
            (wide(key) * key_scale, wide(value) * value_scale)
        });
        elements.unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    #[test]
    fn what_is_stored_is_near_what_was_appended() {
        let (tokens, heads, d) = (150, 3, 20);
        let (mut k, v) = (values(tokens * heads * d, 0.1), values(tokens * heads * d, 0.2));
        k[5 * d..6 * d].fill(0.0);
        let stored = |cache_type| {
            let mut cache = KvCache::new(cache_type, heads, d);
            for tokens in [0..1, 1..64, 64..100, 100..tokens] {
                let first = tokens.start;
                cache.append(&Threads::new(2), tokens.len(), |row, head, key| {
                    let start = ((first + row) * heads + head) * d;
                    key.copy_from_slice(&k[start..][..d]);
                    &v[start..][..d]
                });
            }
            let (keys, values) = cache.stored();
            [keys, values].concat()
        };
        let appended = [&k[..], &v].concat();
        assert_eq!(stored(CacheType::F32), appended);
        let rounded: Vec<f32> = appended.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        assert_eq!(stored(CacheType::F16), rounded);
        for (stored, x) in stored(CacheType::Int8).chunks(d).zip(appended.chunks(d)) {
            // Half a step of the largest element's 127.
            let bound = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 127.0 * 0.50001;
            assert!(x.iter().zip(stored).all(|(x, stored)| (x - stored).abs() <= bound));
        }
    }
}
