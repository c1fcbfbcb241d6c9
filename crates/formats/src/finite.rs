//! Weights that are no numbers.

use openelm_model::Tensor;
use openelm_model::kernels::Threads;

/// Values of a piece: whole blocks and groups of any format.
const PIECE: usize = 1 << 15;

/// The sentence to say of a tensor that holds infinity or NaN; `name` is CoreNet's. All of its values are looked at.
pub(crate) fn warning(tensor: &Tensor, name: &str, threads: &Threads) -> Option<String> {
    let matrix = tensor.matrix();
    let mut found: Vec<Option<(usize, f32)>> = vec![None; matrix.len().div_ceil(PIECE)];
    threads.for_each_chunk(&mut found, 1, |piece, found| {
        let start = piece * PIECE;
        let mut values = vec![0.0; PIECE.min(matrix.len() - start)];
        matrix.widen(start, &mut values);
        let place = values.iter().position(|value| !value.is_finite());
        found[0] = place.map(|at| (start + at, values[at]));
    });
    let (at, value) = found.into_iter().flatten().next()?;
    let place = match tensor.shape() {
        &[_, columns] => format!("row {}, column {}", at / columns, at % columns),
        _ => format!("element {at}"),
    };
    Some(format!("tensor {name} holds {value} ({place}): the model is damaged"))
}

#[cfg(test)]
mod tests {
    use openelm_model::kernels::quant::BlockFormat;
    use openelm_model::{DType, Encoding};

    use super::*;
    use crate::encode;

    #[test]
    fn one_value_in_many_is_found_in_every_encoding() {
        let (rows, columns, threads) = (300, 256, Threads::new(2));
        let tensor = |values: Vec<f32>| Tensor::from_f32(vec![rows, columns], values).unwrap();
        let sound = tensor(vec![0.25; rows * columns]);
        let mut values = vec![0.25; rows * columns];
        values[299 * columns + 3] = f32::NAN;
        values[131 * columns + 17] = f32::NEG_INFINITY;
        let damaged = tensor(values);
        for encoding in [DType::F32, DType::F16, DType::BF16].map(Encoding::Float) {
            let encoded = |tensor| encode(tensor, encoding, "x", &threads).unwrap();
            assert_eq!(warning(&encoded(&sound), "x", &threads), None);
            let said = warning(&encoded(&damaged), "x", &threads).unwrap();
            assert_eq!(said, "tensor x holds -inf (row 131, column 17): the model is damaged");
        }
        // A scale that is no number spoils its block.
        let format = BlockFormat::Q8_0;
        let blocks = encode(&sound, Encoding::Blocks(format), "x", &threads).unwrap();
        assert_eq!(warning(&blocks, "x", &threads), None);
        let mut bytes = blocks.bytes().to_vec();
        let block = (columns / 32) * 7 + 2;
        bytes[block * format.block_bytes()..][..2].copy_from_slice(&0x7e00u16.to_le_bytes());
        let blocks = Tensor::blocks(format, vec![rows, columns], bytes.into()).unwrap();
        assert!(warning(&blocks, "x", &threads).unwrap().contains("NaN (row 7, column 64)"));
    }
}
