//! The order of queries and keys. llama.cpp rotates neighbouring elements of a head in some architectures, where everyone else
//! rotates its halves against each other; their files hold the rows of the projections accordingly:
//!
//! ```text
//! here   0 1 2 3 | 4 5 6 7      element j turns with j + 4
//! there  0 4 1 5 2 6 3 7        each with its neighbour
//! ```

use openelm_kernels::Heads;
use openelm_model::{Family, Role, Stack, Tensor};

/// Whether files of the family hold the rows of a tensor in the other order.
pub(super) fn is_interleaved(family: Family, role: Role) -> bool {
    matches!(family, Family::Llama | Family::Olmo) && role == Role::QkvProj
}

/// Queries, keys and values of a file in the order of halves.
pub(crate) fn untangled(parts: &Stack, heads: Heads) -> Stack {
    let parts = parts.parts().iter().enumerate();
    let turned = |(i, part): (usize, &Tensor)| if i < 2 { untangled_part(part, heads.head_dim) } else { part.clone() };
    Stack::new(parts.map(turned).collect())
}

/// Queries or keys in the order of halves.
pub(super) fn untangled_part(part: &Tensor, head_dim: usize) -> Tensor {
    let half = head_dim / 2;
    part.reordered(|row| {
        let (head, element) = (row / head_dim, row % head_dim);
        head * head_dim + 2 * (element % half) + element / half
    })
}

/// Queries or keys in the order of neighbours.
pub(super) fn interleaved(part: &Tensor, head_dim: usize) -> Tensor {
    let half = head_dim / 2;
    part.reordered(|row| {
        let (head, element) = (row / head_dim, row % head_dim);
        head * head_dim + element % 2 * half + element / 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_undo_each_other() {
        let heads = Heads { query_heads: 2, kv_heads: 1, head_dim: 8 };
        let part = |rows: usize| Tensor::from_f32(vec![rows, 1], (0..rows).map(|x| x as f32).collect()).unwrap();
        let [q, k, v] = [part(16), part(8), part(8)];
        let there = interleaved(&q, 8);
        assert_eq!(there.to_f32()[..8], [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
        let back = untangled(&Stack::new(vec![there, interleaved(&k, 8), v.clone()]), heads);
        let back: Vec<Vec<f32>> = back.parts().iter().map(Tensor::to_f32).collect();
        assert_eq!(back, [q.to_f32(), k.to_f32(), v.to_f32()]);
    }
}
