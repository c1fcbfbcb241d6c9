//! Repair by the rules of ftfy.

/// Longest piece that is repaired at once, in characters, as in ftfy.
const SEGMENT: usize = 1_000_000;

/// See [`super::text_repair`].
pub(super) fn clean(text: &str) -> String {
    let mut unescape_html = true;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        for segment in segments(line) {
            unescape_html &= !segment.contains('<');
            let segment = without_terminal_escapes(segment);
            if unescape_html {
                out.push_str(&plsfix::fix_text(&segment, None));
            } else {
                out.push_str(&with_entities_kept(&segment));
            }
        }
    }
    out
}

/// Repairs a segment but for its HTML entities. The library always unescapes them (0.1.8), so that the ampersands are
/// hidden from it behind a character that the segment does not have.
fn with_entities_kept(segment: &str) -> String {
    let private_use = ('\u{e000}'..='\u{f8ff}').find(|&c| !segment.contains(c));
    match private_use {
        Some(c) if segment.contains('&') => {
            plsfix::fix_text(&segment.replace('&', &c.to_string()), None).replace(c, "&")
        }
        _ => plsfix::fix_text(segment, None),
    }
}

/// Cuts a line that is longer than [`SEGMENT`], at characters.
fn segments(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        // A segment of the library is measured in bytes, so that one of a quarter as many characters is safe.
        let end = rest.char_indices().nth(SEGMENT / 4).map_or(rest.len(), |(end, _)| end);
        let (segment, tail) = rest.split_at(end);
        rest = tail;
        (!segment.is_empty()).then_some(segment)
    })
}

/// Takes out sequences (the library misses them) such as `ESC [ 3 1 m`, which colour a terminal: digits and semicolons, ended by a letter.
fn without_terminal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        let (before, sequence) = rest.split_at(start);
        out.push_str(before);
        let parameters = &sequence[2..];
        let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';');
        rest = match end {
            Some(end) if parameters[end..].starts_with(|c: char| c.is_ascii_alphabetic()) => &parameters[end + 1..],
            _ => {
                out.push_str(&sequence[..2]);
                parameters
            }
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_and_what_only_looks_like_one_stays() {
        assert_eq!(without_terminal_escapes("a\u{1b}[31;1mred\u{1b}[0m"), "ared");
        assert_eq!(without_terminal_escapes("\u{1b}[31\u{1b}[x é"), "\u{1b}[31 é");
        assert_eq!(without_terminal_escapes("\u{1b}["), "\u{1b}[");
    }

    #[test]
    fn entities_stay_where_the_text_may_be_html() {
        assert_eq!(clean("a &amp; b\n<i> &amp;\n&amp;"), "a & b\n<i> &amp;\n&amp;");
    }

    #[test]
    fn lines_longer_than_a_segment_are_repaired_in_parts() {
        let line = "“é” ".repeat(400_000);
        assert_eq!(clean(&line), "\"é\" ".repeat(400_000));
    }
}
