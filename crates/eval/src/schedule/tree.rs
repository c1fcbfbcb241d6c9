//! Which queries begin alike.

use std::ops::Range;

use crate::request::Query;

/// Fewest tokens in common that are worth a branch of their own: shorter beginnings are computed again by each.
const SHARED: usize = 16;

/// A run of tokens that some queries have in common, behind those of its parent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// Positions of the tokens.
    pub tokens: Range<usize>,
    /// The queries that have them, as places in the order.
    pub queries: Range<usize>,
    /// How they go on.
    pub branches: Vec<Branch>,
    /// Tokens of this and of all branches behind it.
    pub cost: usize,
}

/// Queries in an order in which those that begin alike stand together, and the tree of what they share.
pub(super) struct Tree {
    /// Places of the queries.
    pub order: Vec<usize>,
    /// What begins with nothing in common.
    pub branches: Vec<Branch>,
}

/// The tokens of `query` that the model sees.
pub(super) fn shown(query: &Query) -> &[u32] {
    &query.tokens[..query.tokens.len() - 1]
}

impl Tree {
    pub fn new(queries: &[Query]) -> Self {
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by(|&a, &b| shown(&queries[a]).cmp(shown(&queries[b])).then(a.cmp(&b)));
        let sorted: Vec<&[u32]> = order.iter().map(|&query| shown(&queries[query])).collect();
        let common = |pair: &[&[u32]]| pair[0].iter().zip(pair[1]).take_while(|(a, b)| a == b).count();
        let common: Vec<usize> = sorted.windows(2).map(common).collect();
        let branches = Grower { sorted: &sorted, common: &common }.branches(0..sorted.len(), 0);
        Self { order, branches }
    }
}

struct Grower<'a> {
    sorted: &'a [&'a [u32]],
    /// Tokens that each query has in common with the next one.
    common: &'a [usize],
}

impl Grower<'_> {
    /// The branches of `queries`, which have their first `depth` tokens in common and more than those.
    fn branches(&self, queries: Range<usize>, depth: usize) -> Vec<Branch> {
        let mut branches = Vec::new();
        let mut start = queries.start;
        for next in queries.start + 1..=queries.end {
            if next == queries.end || !self.belong_together(next - 1, depth) {
                branches.push(self.branch(start..next, depth));
                start = next;
            }
        }
        branches
    }

    /// Whether the query at `place` and the next one share a branch behind `depth`.
    fn belong_together(&self, place: usize, depth: usize) -> bool {
        let common = self.common[place];
        let same = common == self.sorted[place].len() && common == self.sorted[place + 1].len();
        same || common >= depth + SHARED
    }

    fn branch(&self, queries: Range<usize>, depth: usize) -> Branch {
        let shortest = self.common[queries.start..queries.end - 1].iter().min();
        let end = shortest.copied().unwrap_or(self.sorted[queries.start].len());
        // Those that end here come first.
        let longer = queries.clone().find(|&query| self.sorted[query].len() > end).unwrap_or(queries.end);
        let branches = if longer < queries.end { self.branches(longer..queries.end, end) } else { Vec::new() };
        let cost = end - depth + branches.iter().map(|branch| branch.cost).sum::<usize>();
        Branch { tokens: depth..end, queries, branches, cost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(tokens: impl IntoIterator<Item = u32>) -> Query {
        Query { tokens: tokens.into_iter().collect(), scored: 1 }
    }

    #[test]
    fn common_beginnings_are_branches_and_each_query_is_whole() {
        let queries = [
            query((0..40).chain([7, 8])),
            query((0..40).chain([9, 8, 3])),
            query((0..40).chain([7, 8])),
            query(0..41),
            query(100..103),
            query([0, 1, 2, 90, 91]),
        ];
        let tree = Tree::new(&queries);
        assert_eq!(tree.branches.len(), 3);
        let shared = &tree.branches[0];
        assert_eq!((shared.tokens.clone(), shared.queries.len(), shared.branches.len()), (0..40, 4, 2));
        // 40 in common, then 40, 7 8 and 9 8 as far as they are shown, and 4 and 2 of the others.
        let cost: usize = tree.branches.iter().map(|branch| branch.cost).sum();
        assert_eq!(cost, 40 + 1 + 2 + 4 + 2);
        fn along(branch: &Branch, query: usize, found: &mut usize) {
            assert_eq!(branch.tokens.start, *found);
            *found = branch.tokens.end;
            branch.branches.iter().filter(|b| b.queries.contains(&query)).for_each(|b| along(b, query, found));
        }
        for place in 0..queries.len() {
            let mut found = 0;
            tree.branches.iter().filter(|b| b.queries.contains(&place)).for_each(|b| along(b, place, &mut found));
            assert_eq!(found, shown(&queries[tree.order[place]]).len());
        }
    }
}
