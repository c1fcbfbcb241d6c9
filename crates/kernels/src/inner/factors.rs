//! What tiles of inner products multiply: numbers widened to `f32`, or pairs of `bf16`.

use std::marker::PhantomData;

use crate::lanes::{Element, Half, LANES, Lanes};

/// What is multiplied: elements of rows that pass by, and vectors of rows in panels, which take as much as sixteen `f32`.
pub(super) trait Factors: Sized {
    type Element: bytemuck::Pod + Send + Sync;
    /// Columns of a vector.
    const COLUMNS: usize;
    type Vector<L: Lanes>: Copy;

    /// A vector of a row that passes by.
    ///
    /// # Safety
    /// There are so many columns at `from`.
    unsafe fn load<L: Lanes>(lanes: L, from: *const Self::Element) -> Self::Vector<L>;
    /// A vector of a panel.
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> Self::Vector<L>;
    /// A vector of a row as it lies in a panel.
    ///
    /// # Safety
    /// As of [`Factors::load`].
    unsafe fn lay<L: Lanes>(lanes: L, from: *const Self::Element) -> [f32; LANES];
    fn mul_add<L: Lanes>(lanes: L, x: Self::Vector<L>, y: Self::Vector<L>, sum: L::Vector) -> L::Vector;
}

/// Numbers that are widened to `f32`.
pub(super) struct Wide<T>(PhantomData<T>);

impl<T: Element> Factors for Wide<T> {
    type Element = T;
    const COLUMNS: usize = LANES;
    type Vector<L: Lanes> = L::Vector;

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const T) -> L::Vector {
        // SAFETY: as the caller says.
        T::load(lanes, unsafe { &*from.cast() })
    }

    #[inline(always)]
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> L::Vector {
        lanes.load(from)
    }

    #[inline(always)]
    unsafe fn lay<L: Lanes>(lanes: L, from: *const T) -> [f32; LANES] {
        // SAFETY: as the caller says.
        lanes.to_array(unsafe { Self::load(lanes, from) })
    }

    #[inline(always)]
    fn mul_add<L: Lanes>(lanes: L, x: L::Vector, y: L::Vector, sum: L::Vector) -> L::Vector {
        lanes.mul_add(x, y, sum)
    }
}

/// Pairs of `bf16`, or of what is rounded to it.
pub(super) struct Pairs<T>(PhantomData<T>);

impl<T: Half> Factors for Pairs<T> {
    type Element = T;
    const COLUMNS: usize = 2 * LANES;
    type Vector<L: Lanes> = L::Pairs;

    #[inline(always)]
    unsafe fn load<L: Lanes>(lanes: L, from: *const T) -> L::Pairs {
        // SAFETY: as the caller says.
        lanes.load_pairs(&T::round(lanes, unsafe { &*from.cast() }))
    }

    #[inline(always)]
    fn load_laid<L: Lanes>(lanes: L, from: &[f32; LANES]) -> L::Pairs {
        lanes.load_pairs(bytemuck::cast_ref(from))
    }

    #[inline(always)]
    unsafe fn lay<L: Lanes>(lanes: L, from: *const T) -> [f32; LANES] {
        // SAFETY: as the caller says.
        bytemuck::cast(T::round(lanes, unsafe { &*from.cast() }))
    }

    #[inline(always)]
    fn mul_add<L: Lanes>(lanes: L, x: L::Pairs, y: L::Pairs, sum: L::Vector) -> L::Vector {
        lanes.add_pairs(x, y, sum)
    }
}
