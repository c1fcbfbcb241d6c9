//! The rules that a SentencePiece model brings along for rewriting characters: a Darts double-array trie over UTF-8 and the
//! texts that it points to, as `NormalizerSpec.precompiled_charsmap` packs them.

/// No rule of Unicode's normal forms reads or writes as many bytes; a file that goes beyond could make a text of a page fill
/// the memory.
const MAX_RULE_BYTES: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    /// What is written, each ended by a NUL.
    texts: String,
}

impl Charsmap {
    /// Takes apart `bytes`: the size of the trie, the trie, the texts. All numbers are little-endian.
    pub fn new(bytes: &[u8]) -> Result<Self, &'static str> {
        let (size, rest) = bytes.split_first_chunk().ok_or("they are cut off")?;
        let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or("they are cut off")?;
        let units: Vec<u32> = trie.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
        let texts = std::str::from_utf8(texts).map_err(|_| "their texts are not UTF-8")?;
        if units.is_empty() || units.len() * 4 != trie.len() || !texts.ends_with('\0') {
            return Err("they are cut off");
        }
        if texts.split('\0').any(|text| text.len() > MAX_RULE_BYTES) {
            return Err("one of them writes more than 256 bytes");
        }
        Ok(Self { units, texts: texts.to_owned() })
    }

    /// What the longest rule that applies at the beginning of `text` writes, and how many bytes it replaces. A place beyond the
    /// trie or the texts ends the search, as if there were no rule.
    pub fn rewrite(&self, text: &str) -> Option<(&str, usize)> {
        let mut found = None;
        let mut place = offset(self.units[0]);
        for (i, &byte) in text.as_bytes().iter().enumerate().take(MAX_RULE_BYTES) {
            place ^= byte as usize;
            let Some(&unit) = self.units.get(place).filter(|&&unit| label(unit) == u32::from(byte)) else { break };
            place ^= offset(unit);
            if has_value(unit) {
                found = self.units.get(place).map(|&unit| (value(unit), i + 1));
            }
        }
        let (value, length) = found.filter(|&(_, length)| text.is_char_boundary(length))?;
        Some((self.texts.get(value..)?.split('\0').next()?, length))
    }
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn value(unit: u32) -> usize {
    (unit & 0x7fff_ffff) as usize
}

fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}
