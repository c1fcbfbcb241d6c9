//! The optimiser's moments, in the precision in which they are kept between steps.

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;
use openelm_kernels::Threads;
use openelm_kernels::adamw::{self, AdamW};
use openelm_kernels::precision::Stored;

/// First and second moments, one of each for each weight.
pub(crate) enum Moments {
    F32([Vec<f32>; 2]),
    BF16([Vec<bf16>; 2]),
}

impl Moments {
    /// Moments of zero.
    pub(crate) fn zeros(length: usize, in_bf16: bool) -> Self {
        match in_bf16 {
            false => Self::F32([(); 2].map(|()| vec![0.0; length])),
            true => Self::BF16([(); 2].map(|()| vec![bf16::ZERO; length])),
        }
    }

    /// First and second moments in `f32`.
    pub(crate) fn widened(&self) -> [Cow<'_, [f32]>; 2] {
        match self {
            Self::F32(moments) => moments.each_ref().map(|moments| Cow::Borrowed(moments.as_slice())),
            Self::BF16(moments) => {
                moments.each_ref().map(|moments| Cow::Owned(moments.iter().map(|x| x.widen()).collect()))
            }
        }
    }

    /// Sets those from `start` on.
    pub(crate) fn restore(&mut self, start: usize, values: [&[f32]; 2]) {
        match self {
            Self::F32(moments) => fill(moments, start, values),
            Self::BF16(moments) => fill(moments, start, values),
        }
    }

    /// Updates `weights`, whose moments lie at `here`: see [`adamw::step`].
    pub(crate) fn update(
        &mut self,
        threads: &Threads,
        here: Range<usize>,
        weights: &mut [f32],
        gradients: &[f32],
        options: &AdamW,
    ) {
        match self {
            Self::F32([first, second]) => {
                adamw::step(threads, weights, gradients, [&mut first[here.clone()], &mut second[here]], options);
            }
            Self::BF16([first, second]) => {
                adamw::step(threads, weights, gradients, [&mut first[here.clone()], &mut second[here]], options);
            }
        }
    }
}

fn fill<M: Stored>(moments: &mut [Vec<M>; 2], start: usize, values: [&[f32]; 2]) {
    for (moments, values) in moments.iter_mut().zip(values) {
        for (moment, &value) in moments[start..].iter_mut().zip(values) {
            *moment = M::round(value);
        }
    }
}
