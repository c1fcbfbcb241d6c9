//! Memory for weights that are kept in another order.

/// There is no memory for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub bytes: usize,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there are no {} bytes of memory left", self.bytes)
    }
}

impl std::error::Error for OutOfMemory {}

/// Memory of our own for much data, which begins on a cache line; where the system has them in large pages: reading it then
/// misses fewer translations.
pub(crate) struct Zeroed {
    /// `None` if the length is 0.
    memory: Option<system::Memory>,
    length: usize,
}

impl Zeroed {
    /// `length` zeros.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(length: usize) -> Result<Self, OutOfMemory> {
        let memory = match length {
            0 => None,
            _ => Some(system::zeroed(length).ok_or(OutOfMemory { bytes: length })?),
        };
        Ok(Self { memory, length })
    }
}

impl AsRef<[u8]> for Zeroed {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map(|memory| &system::bytes(memory)[..self.length]).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Zeroed {
    fn as_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map(|memory| &mut system::bytes_mut(memory)[..self.length]).unwrap_or_default()
    }
}

/// Maps of no file.
#[cfg(any(unix, windows))]
mod system {
    pub(super) type Memory = memmap2::MmapMut;

    pub(super) fn zeroed(length: usize) -> Option<Memory> {
        let map = Memory::map_anon(length).ok()?;
        // Advice only: without large pages all goes on.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(map)
    }

    pub(super) fn bytes(memory: &Memory) -> &[u8] {
        memory
    }

    pub(super) fn bytes_mut(memory: &mut Memory) -> &mut [u8] {
        memory
    }
}

/// The heap: there are no maps.
#[cfg(not(any(unix, windows)))]
mod system {
    use crate::cache_line::CacheLine;

    pub(super) type Memory = Vec<CacheLine>;

    pub(super) fn zeroed(length: usize) -> Option<Memory> {
        let lines = length.div_ceil(CacheLine::BYTES);
        let mut memory = Vec::new();
        memory.try_reserve_exact(lines).ok()?;
        memory.resize(lines, bytemuck::Zeroable::zeroed());
        Some(memory)
    }

    pub(super) fn bytes(memory: &Memory) -> &[u8] {
        bytemuck::cast_slice(memory)
    }

    pub(super) fn bytes_mut(memory: &mut Memory) -> &mut [u8] {
        bytemuck::cast_slice_mut(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zero_and_begins_on_a_cache_line() {
        for length in [0, 1, 64, 100_000] {
            let mut memory = Zeroed::new(length).unwrap();
            assert!(memory.as_ref().iter().all(|&byte| byte == 0));
            assert_eq!((memory.as_ref().len(), memory.as_mut().len()), (length, length));
            assert!(length == 0 || memory.as_ref().as_ptr().align_offset(64) == 0);
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        let bytes = isize::MAX as usize - 4096;
        let error = Zeroed::new(bytes).err().unwrap();
        assert_eq!(error, OutOfMemory { bytes });
        assert!(error.to_string().contains(&bytes.to_string()));
    }
}
