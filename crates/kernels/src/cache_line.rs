//! Memory that begins on a cache line: a vector load then never straddles two lines.

/// Sixteen elements on a cache line of their own.
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(crate) struct CacheLine([f32; 16]);

impl CacheLine {
    /// Bytes of a line.
    pub(crate) const BYTES: usize = size_of::<CacheLine>();
}

/// The first `length` elements of `buffer`, which grows as needed, to that size and without a copy; they hold what a call
/// left there, or zeros.
pub(crate) fn reserve<T: bytemuck::Pod>(buffer: &mut Vec<CacheLine>, length: usize) -> &mut [T] {
    let lines = (length * size_of::<T>()).div_ceil(CacheLine::BYTES);
    if buffer.len() < lines {
        // The old memory goes before the new comes.
        *buffer = Vec::new();
        *buffer = vec![bytemuck::Zeroable::zeroed(); lines];
    }
    &mut bytemuck::cast_slice_mut(buffer)[..length]
}
