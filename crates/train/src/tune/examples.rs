//! All examples of a run as token ids, in a file without a name: memory holds where each begins and nothing more.
//!
//! Every row is read, rendered and encoded before the first update, so that whatever is wrong with one is known by then.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::Tokenizer;
use sha2::{Digest, Sha256};

use super::error::TuneError;
use super::example::{Example, Text};
use super::recipe::{ExamplesRecipe, Learn, RowSource, TooLong};
use super::template::{Part, Template, Templates};
use crate::data::{DataError, OnError, Record, Shards};

/// Marks an id that is learnt: vocabularies have fewer.
const LEARNT: u32 = 1 << 31;

/// How rows become ids.
pub(super) struct Encoding<'r> {
    pub recipe: &'r ExamplesRecipe,
    pub tokenizer: &'r Tokenizer,
    pub templates: &'r Templates,
    /// Whether rows are pairs.
    pub pairs: bool,
    /// Most tokens of an example.
    pub max_length: usize,
}

/// What became of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub examples: u64,
    /// Left out because they were too long.
    pub dropped: u64,
    /// Left out because they were no examples.
    pub damaged: u64,
    pub tokens: u64,
}

/// Encoded examples; of a pair the better one comes first, both under one number.
pub(super) struct Examples {
    file: File,
    path: PathBuf,
    /// Behind the last id of each sequence.
    ends: Vec<u64>,
    /// Sequences of an example.
    sides: usize,
    /// Of all ids, in hexadecimal.
    pub sha256: String,
    /// How the first of them became text.
    pub template: Template,
    tally: Tally,
}

impl Examples {
    /// Reads and encodes the rows of `sources`. The file lies in `folder`, or in the nearest folder above it that is there.
    /// `progress` hears how many rows were read.
    ///
    /// # Errors
    /// If a row is no example, as far as the recipe does not pass over it; and if `stop` becomes true.
    pub fn read(
        encoding: &Encoding<'_>,
        sources: &[RowSource],
        what: &'static str,
        folder: &Path,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, TuneError> {
        let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let path = there.to_owned();
        let at = |source: io::Error| TuneError::Io { path: path.clone(), source };
        let mut file = BufWriter::new(tempfile::tempfile_in(there).map_err(at)?);
        let (mut ends, mut hash, mut tally, mut rows) = (Vec::new(), Sha256::new(), Tally::default(), 0);
        let (mut written, mut template) = (0, None);
        Shards::find(&RowSource::corpus(sources))?.records(&mut |record: Record| -> Result<(), TuneError> {
            if stop.load(Ordering::Relaxed) {
                return Err(TuneError::Stopped);
            }
            rows += 1;
            if rows % 64 == 0 {
                progress(rows);
            }
            let sides = match encoding.sides(&record, &mut template) {
                Ok(Some(sides)) => sides,
                Ok(None) => {
                    tally.dropped += 1;
                    return Ok(());
                }
                Err(_) if encoding.recipe.on_error == OnError::Skip => {
                    tally.damaged += 1;
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            };
            tally.examples += 1;
            for ids in sides {
                tally.tokens += ids.len() as u64;
                written += ids.len() as u64;
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                hash.update((ids.len() as u64).to_le_bytes());
                hash.update(&bytes);
                file.write_all(&bytes).map_err(at)?;
                ends.push(written);
            }
            Ok(())
        })?;
        let Some(template) = template.filter(|_| !ends.is_empty()) else {
            let reason = format!("of {rows} rows {} were too long and {} were none", tally.dropped, tally.damaged);
            return Err(TuneError::Empty { what, reason });
        };
        progress(rows);
        let file = file.into_inner().map_err(|e| at(e.into_error()))?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let sides = if encoding.pairs { 2 } else { 1 };
        Ok(Self { file, path, ends, sides, sha256, template, tally })
    }

    /// What was read, in words.
    pub fn summary(&self) -> String {
        let Tally { examples, dropped, damaged, tokens } = self.tally;
        let mut text = format!("{examples} examples, {tokens} tokens");
        for (count, what) in [(dropped, "too long"), (damaged, "no examples")] {
            if count > 0 {
                text += &format!("; left out: {count} {what}");
            }
        }
        text
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.ends.len() / self.sides
    }

    /// Targets of the example `index`, of the longer side of a pair.
    pub fn targets(&self, index: usize) -> usize {
        let sides = index * self.sides..(index + 1) * self.sides;
        sides.map(|side| self.range(side).1 as usize - 1).max().unwrap_or(0)
    }

    /// First id and number of ids of a sequence.
    fn range(&self, side: usize) -> (u64, u64) {
        let begin = if side == 0 { 0 } else { self.ends[side - 1] };
        (begin, self.ends[side] - begin)
    }

    /// The sequences of the example `index`: ids, and whether each is learnt.
    ///
    /// # Errors
    /// If the system cannot read them.
    pub fn get(&mut self, index: usize) -> Result<Vec<Vec<(u32, bool)>>, TuneError> {
        let mut sides = Vec::with_capacity(self.sides);
        for side in index * self.sides..(index + 1) * self.sides {
            let (begin, length) = self.range(side);
            let mut bytes = vec![0; 4 * length as usize];
            let read = self.file.seek(SeekFrom::Start(4 * begin)).and_then(|_| self.file.read_exact(&mut bytes));
            read.map_err(|source| TuneError::Io { path: self.path.clone(), source })?;
            let ids = bytes.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
            sides.push(ids.map(|id| (id & !LEARNT, id & LEARNT != 0)).collect());
        }
        Ok(sides)
    }
}

impl Encoding<'_> {
    /// The ids of what `record` says, marked where they are learnt; `None` if it is too long and left out.
    fn sides(&self, record: &Record, template: &mut Option<Template>) -> Result<Option<Vec<Vec<u32>>>, DataError> {
        let wrong = |reason: String| record.wrong(reason);
        let is_pair = ["chosen", "rejected"].iter().any(|key| record.fields.contains_key(*key));
        if is_pair != self.pairs {
            return Err(record.wrong(match is_pair {
                true => "it is a pair of answers; pairs are learnt from with a [preference] in the recipe",
                false => "it is no pair of answers: it has neither chosen nor rejected",
            }));
        }
        let example = Example::of(record).map_err(wrong)?;
        let (Example::Supervised(text) | Example::Pair([text, _])) = &example;
        template.get_or_insert_with(|| self.templates.for_text(text));
        match example {
            Example::Supervised(text) => {
                let ids = self.supervised(&text).map_err(wrong)?;
                self.fitted(ids).map(|ids| ids.map(|ids| vec![ids])).map_err(wrong)
            }
            Example::Pair(pair) => self.pair(&pair).map_err(wrong),
        }
    }

    fn encoded(&self, text: &Text) -> Result<Vec<(u32, Part)>, String> {
        self.templates.for_text(text).encode(text, self.tokenizer)
    }

    fn supervised(&self, text: &Text) -> Result<Vec<u32>, String> {
        let encoded = self.encoded(text)?;
        let all = self.recipe.learn == Learn::All;
        let is_learnt = |part| all || part == Part::Answer;
        Ok(encoded.into_iter().map(|(id, part)| if is_learnt(part) { id | LEARNT } else { id }).collect())
    }

    /// `ids`, if they are not too long or may be cut, and something is left to learn.
    fn fitted(&self, mut ids: Vec<u32>) -> Result<Option<Vec<u32>>, String> {
        let (length, most) = (ids.len(), self.max_length);
        if length > most {
            match self.recipe.too_long {
                TooLong::Refuse => {
                    return Err(format!(
                        "it has {length} tokens, more than {most} (data.max_length); data.too_long = \"drop\" leaves such \
                         examples out, \"cut\" cuts them"
                    ));
                }
                TooLong::Drop => return Ok(None),
                TooLong::Cut => ids.truncate(most),
            }
        }
        let learns = ids.iter().skip(1).any(|id| id & LEARNT != 0);
        match learns {
            true => Ok(Some(ids)),
            false if length > most => Ok(None),
            false => Err("no token of it is learnt".to_owned()),
        }
    }

    /// Both sides of a pair, cut as TRL 0.8 does: if the longer answer does not fit behind the prompt, the prompt keeps its end, and
    /// if that is not enough, the answers their beginning.
    fn pair(&self, pair: &[Text; 2]) -> Result<Option<Vec<Vec<u32>>>, String> {
        let most = self.max_length;
        let most_of_prompt = self.recipe.max_prompt_length.unwrap_or(most / 2);
        let encoded = [self.encoded(&pair[0])?, self.encoded(&pair[1])?];
        let prompt = common_prompt(&encoded);
        let mut sides = Vec::new();
        for side in &encoded {
            // What announces an answer and what follows it belong to it, as the Alignment Handbook has it.
            let (prompt, answer) = side.split_at(prompt.min(side.len()));
            let unmarked = prompt.iter().map(|(id, _)| *id);
            let marked = answer.iter().map(|(id, part)| if *part == Part::Given { *id } else { id | LEARNT });
            // TRL puts one more token that ends behind an answer, whatever the template has there.
            let end = self.tokenizer.eos_id().filter(|&end| answer.last().is_none_or(|last| last.0 != end));
            let end = end.map(|id| id | LEARNT);
            sides.push((unmarked.collect::<Vec<u32>>(), marked.chain(end).collect::<Vec<u32>>()));
        }
        let longest = sides.iter().map(|(_, answer)| answer.len()).max().unwrap_or(0);
        let longest_prompt = sides.iter().map(|(prompt, _)| prompt.len()).max().unwrap_or(0);
        if longest_prompt + longest > most {
            match self.recipe.too_long {
                TooLong::Refuse => {
                    return Err(format!(
                        "prompt and answer have {} tokens, more than {most} (data.max_length); data.too_long = \"drop\" leaves \
                         such pairs out, \"cut\" cuts them",
                        longest_prompt + longest
                    ));
                }
                TooLong::Drop => return Ok(None),
                TooLong::Cut => sides.iter_mut().for_each(|(prompt, _)| {
                    prompt.drain(..prompt.len().saturating_sub(most_of_prompt));
                }),
            }
        }
        let kept_prompt = sides.iter().map(|(prompt, _)| prompt.len()).max().unwrap_or(0);
        if kept_prompt + longest > most {
            sides.iter_mut().for_each(|(_, answer)| answer.truncate(most - most_of_prompt));
        }
        let sides: Vec<Vec<u32>> = sides.into_iter().map(|(prompt, answer)| [prompt, answer].concat()).collect();
        // Nothing comes before a token that is the first one.
        let learns = |ids: &Vec<u32>| ids.iter().skip(1).any(|id| id & LEARNT != 0);
        if !sides.iter().all(learns) {
            return Err("no token of an answer is learnt".to_owned());
        }
        if sides[0] == sides[1] {
            return Err("both answers are the same tokens once they are cut: there is nothing to prefer".to_owned());
        }
        Ok(Some(sides))
    }
}

/// Ids that both sides of a pair have in common before the first answer that differs is announced.
fn common_prompt(encoded: &[Vec<(u32, Part)>; 2]) -> usize {
    let [a, b] = encoded;
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    // Back to where the answer in which they part begins.
    let asked = |side: &[(u32, Part)]| {
        let announced = side[..same.min(side.len())].iter().rposition(|(_, part)| *part == Part::Given);
        announced.map_or(0, |last| last + 1)
    };
    asked(a).min(asked(b))
}
