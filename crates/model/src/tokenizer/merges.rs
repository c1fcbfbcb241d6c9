//! Byte-pair encoding: of all neighbours that may be joined those of the lowest rank are, the leftmost first, until none is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::FastMap;

/// A part of a text while it is being put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    pub id: u32,
    /// In bytes of the text.
    pub length: u32,
}

/// Which two symbols join, and to what.
#[derive(Debug, Default)]
pub(super) struct Merges {
    /// By the left one in the upper half, and the right one.
    pairs: FastMap<u64, Merge>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    /// The lower, the earlier.
    pub rank: u32,
    /// What the pair becomes.
    pub id: u32,
}

/// Up to this many symbols are searched from end to end for the next pair, which beats keeping a queue.
const FEW: usize = 24;

impl Merges {
    /// Of equal pairs the last counts.
    pub fn insert(&mut self, pair: (u32, u32), merge: Merge) {
        self.pairs.insert(key(pair), merge);
    }

    fn get(&self, left: Symbol, right: Symbol) -> Option<Merge> {
        self.pairs.get(&key((left.id, right.id))).copied()
    }

    /// Joins what can be joined of `symbols`.
    pub fn apply(&self, symbols: &mut Vec<Symbol>) {
        match symbols.len() {
            0 | 1 => (),
            2..=FEW => self.apply_to_few(symbols),
            _ => self.apply_to_many(symbols),
        }
    }

    /// Takes the square of their number.
    fn apply_to_few(&self, symbols: &mut Vec<Symbol>) {
        let mut merges = [None; FEW];
        for (merge, pair) in merges.iter_mut().zip(symbols.windows(2)) {
            *merge = self.get(pair[0], pair[1]);
        }
        let mut count = symbols.len();
        while let Some((i, merge)) = first_of_lowest(&merges[..count - 1]) {
            symbols[i] = Symbol { id: merge.id, length: symbols[i].length + symbols[i + 1].length };
            symbols.copy_within(i + 2..count, i + 1);
            merges.copy_within(i + 1..count - 1, i);
            count -= 1;
            if i + 1 < count {
                merges[i] = self.get(symbols[i], symbols[i + 1]);
            }
            if i > 0 {
                merges[i - 1] = self.get(symbols[i - 1], symbols[i]);
            }
        }
        symbols.truncate(count);
    }

    /// Takes time in proportion to their number, and its logarithm.
    fn apply_to_many(&self, symbols: &mut Vec<Symbol>) {
        let end = symbols.len();
        // Neighbours of each; a symbol that went into the one before it has the length zero.
        let mut links: Vec<(usize, usize)> = (0..end).map(|i| (i.wrapping_sub(1), i + 1)).collect();
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let merge = self.get(symbols[left], symbols[right])?;
            let length = symbols[left].length + symbols[right].length;
            Some(Reverse((merge.rank, left, length, merge.id)))
        };
        let mut queue: BinaryHeap<_> = (1..end).filter_map(|right| candidate(symbols, right - 1, right)).collect();
        while let Some(Reverse((_, left, length, id))) = queue.pop() {
            let (before, right) = links[left];
            // One of the two may have become part of another pair since.
            let is_current =
                symbols[left].length > 0 && right < end && symbols[left].length + symbols[right].length == length;
            if !is_current {
                continue;
            }
            let after = links[right].1;
            symbols[left] = Symbol { id, length };
            symbols[right].length = 0;
            links[left].1 = after;
            if after < end {
                links[after].0 = left;
                queue.extend(candidate(symbols, left, after));
            }
            if before < end {
                queue.extend(candidate(symbols, before, left));
            }
        }
        symbols.retain(|symbol| symbol.length > 0);
    }
}

fn key((left, right): (u32, u32)) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn first_of_lowest(merges: &[Option<Merge>]) -> Option<(usize, Merge)> {
    let found = merges.iter().enumerate().filter_map(|(i, merge)| Some((i, (*merge)?)));
    found.min_by_key(|(_, merge)| merge.rank)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_and_many_are_joined_alike(
            pairs in prop::collection::vec((0..6u32, 0..6u32, 0..4u32, 4..12u32), 0..30),
            ids in prop::collection::vec(0..4u32, 2..=FEW),
        ) {
            let mut merges = Merges::default();
            // As in a vocabulary, what a pair becomes tells its length.
            let length = |id: u32| if id < 4 { 1 } else { id - 2 };
            for (left, right, rank, _) in pairs {
                let id = length(left) + length(right) + 2;
                merges.insert((left, right), Merge { rank, id });
            }
            let symbols: Vec<Symbol> = ids.iter().map(|&id| Symbol { id, length: 1 }).collect();
            let (mut few, mut many) = (symbols.clone(), symbols);
            merges.apply_to_few(&mut few);
            merges.apply_to_many(&mut many);
            prop_assert_eq!(few, many);
        }
    }
}
