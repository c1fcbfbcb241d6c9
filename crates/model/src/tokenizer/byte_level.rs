//! Bytes written as characters that can be seen, as GPT-2's vocabulary has them and all those made like it.

/// The character that stands for `byte`: itself if it can be seen, otherwise one from U+0100 on, in the order of bytes.
fn character_of(byte: u8) -> char {
    let is_hidden = |byte: u8| matches!(byte, 0..=b' ' | 0x7f..=0xa0 | 0xad);
    if is_hidden(byte) {
        let place = (0..byte).filter(|&before| is_hidden(before)).count() as u32;
        char::from_u32(0x100 + place).unwrap_or_default()
    } else {
        char::from(byte)
    }
}

/// The characters of all bytes.
pub(super) fn characters() -> [char; 256] {
    std::array::from_fn(|byte| character_of(byte as u8))
}

/// The bytes that the characters of a piece stand for; `None` if one of them stands for none.
pub(super) fn bytes_of(piece: &str, characters: &[char; 256]) -> Option<Vec<u8>> {
    let byte = |c: char| match u32::from(c) {
        // Those that stand for themselves, and the row that begins at U+0100.
        code @ ..0x100 if characters[code as usize] == c => Some(code as u8),
        0x100..0x200 => characters.iter().position(|&other| other == c).map(|byte| byte as u8),
        _ => None,
    };
    piece.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let characters = characters();
        assert_eq!(
            [b' ', b'\n', b'!', 0, 0xff, 0xad].map(|byte| characters[byte as usize]),
            ['Ġ', 'Ċ', '!', 'Ā', 'ÿ', 'Ń']
        );
        let all: String = characters.iter().collect();
        assert_eq!(bytes_of(&all, &characters), Some((0..=255).collect()));
        assert_eq!(bytes_of("Ġ日", &characters), None);
    }
}
