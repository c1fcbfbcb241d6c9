//! In which numbers a run multiplies, where its recipe leaves that to the machine.

use openelm_model::kernels::{Threads, limits};

use crate::collective::{Collective, CollectiveError};
use crate::recipe::ProductPrecision;

/// The precision of products, decided: what is `wanted`, or as the run had it `before`, or else as rank 0 measures, where bf16 is
/// `allowed` at all.
pub(crate) fn decided(
    wanted: ProductPrecision,
    before: impl FnOnce() -> Option<ProductPrecision>,
    allowed: bool,
    ranks: &dyn Collective,
    threads: &Threads,
) -> Result<ProductPrecision, CollectiveError> {
    if wanted != ProductPrecision::Auto {
        return Ok(wanted);
    }
    let mut in_bf16 = Vec::new();
    if ranks.rank() == 0 {
        in_bf16.push(u8::from(match before() {
            Some(precision) if precision != ProductPrecision::Auto => precision == ProductPrecision::BF16,
            _ => allowed && limits::bf16_is_faster(threads),
        }));
    }
    ranks.broadcast(&mut in_bf16)?;
    Ok(if in_bf16 == [1] { ProductPrecision::BF16 } else { ProductPrecision::F32 })
}
