//! Stop strings in a stream of text.

/// Lets text through until one of several strings comes, and holds back what may be the beginning of one.
///
/// ```
/// let mut stop = openelm_model::StopStrings::new(&["###".to_owned()]);
/// assert_eq!(stop.push("All well. #"), "All well. ");
/// assert_eq!(stop.push("1 is #"), "#1 is ");
/// assert_eq!(stop.push("## gone"), "");
/// assert!(stop.stopped());
/// ```
#[derive(Debug, Clone)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Watches for any of `strings`; empty ones never come.
    pub fn new(strings: &[String]) -> Self {
        let strings = strings.iter().filter(|string| !string.is_empty()).cloned().collect();
        Self { strings, held: String::new(), stopped: false }
    }

    /// Takes more text in and gives what is certain to belong to the result.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let first = self.strings.iter().filter_map(|string| self.held.find(string.as_str())).min();
        let certain = match first {
            Some(place) => {
                self.stopped = true;
                place
            }
            None => self.held.len() - self.possible_beginning(),
        };
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string came.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        if self.stopped { String::new() } else { held }
    }

    /// Bytes at the end of the held text that a stop string may begin with.
    fn possible_beginning(&self) -> usize {
        let begins = |string: &String| {
            let longest = (string.len() - 1).min(self.held.len());
            (1..=longest).rev().find(|&n| self.held.as_bytes().ends_with(&string.as_bytes()[..n])).unwrap_or(0)
        };
        let bytes = self.strings.iter().map(begins).max().unwrap_or(0);
        // Never half a character: hold a little more instead.
        (bytes..=self.held.len()).find(|&n| self.held.is_char_boundary(self.held.len() - n)).unwrap_or(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stream_ends_where_the_whole_text_would(
            pieces in proptest::collection::vec("[abé]{0,3}", 0..12),
            strings in proptest::collection::vec("[abé]{0,4}", 0..3),
        ) {
            let whole = pieces.concat();
            let place = strings.iter().filter(|s| !s.is_empty()).filter_map(|s| whole.find(s.as_str())).min();
            let mut stop = StopStrings::new(&strings);
            let mut out: String = pieces.iter().map(|piece| stop.push(piece)).collect();
            out.push_str(&stop.finish());
            prop_assert_eq!(stop.stopped(), place.is_some());
            // Streamed, a shorter string may be complete before a longer one that began earlier.
            match place {
                None => prop_assert_eq!(out, whole),
                Some(place) => {
                    prop_assert!(whole.starts_with(&out));
                    prop_assert!(out.len() >= place);
                    let ends_in_stop = strings.iter().any(|s| !s.is_empty() && whole[out.len()..].starts_with(s.as_str()));
                    prop_assert!(ends_in_stop);
                }
            }
        }
    }
}
