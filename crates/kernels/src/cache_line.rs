//! Memory that begins on a cache line: a vector load then never straddles two lines.

/// Sixteen elements on a cache line of their own.
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
pub(crate) struct CacheLine([f32; 16]);

impl CacheLine {
    /// Bytes of a line.
    pub(crate) const BYTES: usize = size_of::<CacheLine>();
}

/// The first `length` elements of `buffer`, which grows as needed; they hold what was there before, or zeros.
pub(crate) fn reserve<T: bytemuck::Pod>(buffer: &mut Vec<CacheLine>, length: usize) -> &mut [T] {
    let lines = (length * size_of::<T>()).div_ceil(CacheLine::BYTES);
    if buffer.len() < lines {
        buffer.resize(lines, bytemuck::Zeroable::zeroed());
    }
    &mut bytemuck::cast_slice_mut(buffer)[..length]
}
