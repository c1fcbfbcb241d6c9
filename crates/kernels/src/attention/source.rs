//! Where attention takes its tiles from: the projection's output, or a cache.

use std::marker::PhantomData;

use super::cache::{CacheElement, KvCache};
use super::tile::Tile;
use super::{KEYS, Rows, padded};
use crate::cache_line::{CacheLine, reserve};

/// Keys and values by tiles.
pub(super) trait Tiles: Sync {
    type Element: CacheElement;

    /// The tile of a block of keys, in `buffer` or from elsewhere.
    fn tile<'a>(
        &'a self,
        block: usize,
        sequence: usize,
        head: usize,
        buffer: &'a mut Vec<CacheLine>,
    ) -> Tile<'a, Self::Element>;
}

/// Keys and values as the projection leaves them.
pub(super) struct Projected<'a> {
    pub(super) k: Rows<'a>,
    pub(super) v: Rows<'a>,
    pub(super) time: usize,
    pub(super) head_dim: usize,
}

impl Tiles for Projected<'_> {
    type Element = f32;

    #[inline(always)]
    fn tile<'a>(&'a self, block: usize, sequence: usize, head: usize, buffer: &'a mut Vec<CacheLine>) -> Tile<'a, f32> {
        let Self { k, v, time, head_dim: d } = *self;
        let (keys, values) = reserve(buffer, KEYS * (d + padded(d))).split_at_mut(KEYS * d);
        for (column, position) in (block * KEYS..time.min((block + 1) * KEYS)).enumerate() {
            let row = sequence * time + position;
            for (keys, &x) in keys.chunks_exact_mut(KEYS).zip(k.row(row, head, d)) {
                keys[column] = x;
            }
            let (value, padding) = values[column * padded(d)..][..padded(d)].split_at_mut(d);
            value.copy_from_slice(v.row(row, head, d));
            padding.fill(0.0);
        }
        Tile { keys, values, scales: None }
    }
}

/// Caches that hold elements `T`, one per sequence.
pub(super) struct Cached<'a, T> {
    sequences: &'a [(&'a KvCache, usize)],
    element: PhantomData<T>,
}

impl<'a, T> Cached<'a, T> {
    pub(super) fn new(sequences: &'a [(&'a KvCache, usize)]) -> Self {
        Self { sequences, element: PhantomData }
    }
}

impl<T: CacheElement> Tiles for Cached<'_, T> {
    type Element = T;

    #[inline(always)]
    fn tile<'a>(&'a self, block: usize, sequence: usize, head: usize, _: &'a mut Vec<CacheLine>) -> Tile<'a, T> {
        self.sequences[sequence].0.tile(block, head)
    }
}
