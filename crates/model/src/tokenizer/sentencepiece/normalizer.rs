//! What SentencePiece does to a text before it looks for pieces: characters rewritten, spaces made visible.

use crate::sentencepiece::{ModelProto, NormalizerSpec};

use super::super::SPACE;
use super::super::trie::Trie;
use super::charsmap::Charsmap;
use super::{TokenizerError, unusable};

#[derive(Debug)]
pub(super) struct Normalizer {
    charsmap: Option<Charsmap>,
    /// Pieces that stay as they are.
    user_defined: Option<Trie>,
    /// What a space becomes.
    space: &'static str,
    /// Whether a space is put before the first word, or behind the last.
    dummy: Option<Side>,
    remove_extra: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    Behind,
}

impl Normalizer {
    pub fn new(model: &ModelProto, user_defined: Option<Trie>) -> Result<Self, TokenizerError> {
        let default = NormalizerSpec::default();
        let spec = model.normalizer_spec.as_ref().unwrap_or(&default);
        let is_suffix = model.trainer_spec.as_ref().is_some_and(|trainer| trainer.treat_whitespace_as_suffix());
        let side = if is_suffix { Side::Behind } else { Side::Before };
        let charsmap = Some(spec.precompiled_charsmap()).filter(|bytes| !bytes.is_empty()).map(Charsmap::new);
        let damaged = |reason| unusable(format_args!("its rules for normalising text are damaged: {reason}"));
        Ok(Self {
            charsmap: charsmap.transpose().map_err(damaged)?,
            user_defined,
            space: if spec.escape_whitespaces() { SPACE } else { " " },
            dummy: spec.add_dummy_prefix().then_some(side),
            remove_extra: spec.remove_extra_whitespaces(),
        })
    }

    pub fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        if self.remove_extra {
            while let (" ", length) = self.rewrite(rest) {
                rest = &rest[length..];
            }
        }
        let mut out = String::new();
        if rest.is_empty() {
            return out;
        }
        out.reserve(text.len() + text.len() / 2);
        if self.dummy == Some(Side::Before) {
            out.push_str(self.space);
        }
        let mut behind_space = self.remove_extra;
        while !rest.is_empty() {
            let (mut rewritten, length) = self.rewrite(rest);
            if behind_space {
                rewritten = rewritten.trim_start_matches(' ');
            }
            for part in rewritten.split_inclusive(' ') {
                match part.strip_suffix(' ') {
                    Some(word) => out.extend([word, self.space]),
                    None => out.push_str(part),
                }
            }
            if !rewritten.is_empty() {
                behind_space = self.remove_extra && rewritten.ends_with(' ');
            }
            rest = &rest[length..];
        }
        if self.remove_extra {
            out.truncate(out.trim_end_matches(self.space).len());
        }
        if self.dummy == Some(Side::Behind) {
            out.push_str(self.space);
        }
        out
    }

    /// What the beginning of `text` becomes, and how many bytes of it that are; nothing of nothing.
    fn rewrite<'t>(&'t self, text: &'t str) -> (&'t str, usize) {
        if let Some((length, _)) = self.user_defined.as_ref().and_then(|pieces| pieces.longest(text.as_bytes())) {
            return (&text[..length], length);
        }
        match &self.charsmap {
            Some(charsmap) => charsmap.rewrite(text).unwrap_or_else(|| {
                let length = text.chars().next().map_or(0, char::len_utf8);
                (&text[..length], length)
            }),
            // Without rules all is as it is, up to where a user-defined piece may begin.
            None if self.user_defined.is_none() && !self.remove_extra => (text, text.len()),
            None => {
                let length = text.chars().next().map_or(0, char::len_utf8);
                (&text[..length], length)
            }
        }
    }
}
