//! Looking up all prefixes of a text that are in a set, in one walk.

use std::collections::VecDeque;
use std::ops::Range;

const NONE: u32 = u32::MAX;

/// A set of byte strings, each with a number. A node's children stand one after the other, sorted by their byte, and nodes are
/// numbered in the order of the edges that lead to them: edge `e` to node `e + 1`.
#[derive(Debug, Clone)]
pub(super) struct Trie {
    /// Of each node, where its edges begin; and their number at the end.
    edges: Vec<u32>,
    labels: Vec<u8>,
    /// The number of the key that ends at a node.
    values: Vec<u32>,
}

impl Trie {
    /// Of keys that are not empty; of equal ones the first counts.
    pub fn new<'k>(keys: impl IntoIterator<Item = (&'k [u8], u32)>) -> Self {
        let mut keys: Vec<(&[u8], u32)> = keys.into_iter().filter(|(key, _)| !key.is_empty()).collect();
        keys.sort_by_key(|&(key, _)| key);
        keys.dedup_by_key(|&mut (key, _)| key);
        let mut trie = Self { edges: Vec::new(), labels: Vec::new(), values: Vec::new() };
        // Keys below a node, and how many of their bytes lead to it.
        let mut nodes = VecDeque::from([(0..keys.len(), 0)]);
        while let Some((mut below, depth)) = nodes.pop_front() {
            trie.edges.push(trie.labels.len() as u32);
            let ends_here = keys[below.clone()].first().filter(|(key, _)| key.len() == depth);
            trie.values.push(ends_here.map_or(NONE, |&(_, value)| value));
            below.start += usize::from(ends_here.is_some());
            while let Some(&(key, _)) = keys[below.clone()].first() {
                let byte = key[depth];
                let count = keys[below.clone()].partition_point(|(key, _)| key[depth] <= byte);
                trie.labels.push(byte);
                nodes.push_back((below.start..below.start + count, depth + 1));
                below.start += count;
            }
        }
        trie.edges.push(trie.labels.len() as u32);
        trie
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let Range { start, end } = self.edges[node] as usize..self.edges[node + 1] as usize;
        let place = self.labels[start..end].binary_search(&byte).ok()?;
        Some(start + place + 1)
    }

    /// Length and number of each key that `text` begins with, the shortest first.
    pub fn prefixes<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut node = 0;
        let nodes = text.iter().map_while(move |&byte| {
            node = self.child(node, byte)?;
            Some(node)
        });
        nodes.zip(1..).map(|(node, length)| (length, self.values[node])).filter(|&(_, value)| value != NONE)
    }

    /// Length and number of the longest key that `text` begins with.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prefixes_are_those_of_the_set(
            keys in prop::collection::vec("[abé]{1,5}", 0..20),
            text in "[abé]{0,8}",
        ) {
            let trie = Trie::new(keys.iter().zip(0..).map(|(key, value)| (key.as_bytes(), value)));
            let found: Vec<(usize, u32)> = trie.prefixes(text.as_bytes()).collect();
            let first = |length: usize| keys.iter().position(|key| key.as_bytes() == &text.as_bytes()[..length]);
            let expected: Vec<_> = (1..=text.len()).filter_map(|n| Some((n, first(n)? as u32))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
