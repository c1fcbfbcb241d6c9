//! Learning byte-pair encoding: the most frequent pair of neighbours becomes a piece, again and again (Sennrich et al. 2016).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Longest piece in characters, as SentencePiece has it.
pub(super) const MAX_PIECE: usize = 16;

/// A pair that stands in the texts fewer times than this is no piece.
const MIN_COUNT: i64 = 2;

type Pair = (u32, u32);

/// A word of the texts, cut into pieces.
struct Word {
    symbols: Vec<u32>,
    count: i64,
}

/// What was learnt so far.
struct Learner {
    words: Vec<Word>,
    pieces: Vec<String>,
    ids: HashMap<String, u32>,
    /// In characters, of each piece.
    lengths: Vec<usize>,
    /// How often a pair stands in the texts.
    counts: HashMap<Pair, i64>,
    /// The words in which a pair stands, or stood.
    places: HashMap<Pair, Vec<u32>>,
}

/// Learns until there are `size` pieces with the characters of `alphabet`, or no pair is left that stands in the texts twice.
/// Gives the pieces in the order they were learnt, without the alphabet. Of equally frequent pairs the one learnt from earlier
/// pieces comes first, so that the order of `words` does not matter.
pub(super) fn learn(words: HashMap<String, u64>, alphabet: &[char], size: usize) -> Vec<String> {
    let mut learner = Learner::new(words, alphabet);
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> =
        learner.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
    while learner.pieces.len() < size {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let current = learner.counts.get(&pair).copied().unwrap_or_default();
        if current != count {
            // It stands in fewer places since it was queued; if in more, it was queued anew.
            if current > 0 && current < count {
                queue.push((current, Reverse(pair)));
            }
            continue;
        }
        if count < MIN_COUNT {
            break;
        }
        for new in learner.join(pair) {
            queue.push((learner.counts[&new], Reverse(new)));
        }
    }
    learner.pieces.split_off(alphabet.len())
}

impl Learner {
    fn new(words: HashMap<String, u64>, alphabet: &[char]) -> Self {
        let ids: HashMap<char, u32> = alphabet.iter().copied().zip(0..).collect();
        let mut learner = Self {
            words: Vec::new(),
            pieces: alphabet.iter().map(char::to_string).collect(),
            ids: alphabet.iter().map(char::to_string).zip(0..).collect(),
            lengths: vec![1; alphabet.len()],
            counts: HashMap::new(),
            places: HashMap::new(),
        };
        for (word, count) in words {
            // No piece reaches across a character that is left to the bytes.
            let parts = word.split(|c| !ids.contains_key(&c));
            for part in parts.filter(|part| part.chars().nth(1).is_some()) {
                let symbols: Vec<u32> = part.chars().map(|c| ids[&c]).collect();
                let (place, count) = (learner.words.len() as u32, count as i64);
                for pair in symbols.windows(2) {
                    learner.add((pair[0], pair[1]), count, place);
                }
                learner.words.push(Word { symbols, count });
            }
        }
        learner
    }

    /// Counts a pair in the word at `place`.
    fn add(&mut self, pair: Pair, count: i64, place: u32) {
        if self.lengths[pair.0 as usize] + self.lengths[pair.1 as usize] > MAX_PIECE {
            return;
        }
        *self.counts.entry(pair).or_default() += count;
        let places = self.places.entry(pair).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    /// Makes a piece of `pair` wherever it stands, and gives the pairs that are new.
    fn join(&mut self, pair: Pair) -> Vec<Pair> {
        let text = [&*self.pieces[pair.0 as usize], &*self.pieces[pair.1 as usize]].concat();
        let next = self.pieces.len() as u32;
        let id = *self.ids.entry(text.clone()).or_insert(next);
        if id == next {
            self.lengths.push(text.chars().count());
            self.pieces.push(text);
        }
        let mut new = Vec::new();
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        for place in places {
            let Word { mut symbols, count } =
                std::mem::replace(&mut self.words[place as usize], Word { symbols: Vec::new(), count: 0 });
            let (mut from, mut to) = (0, 0);
            while from < symbols.len() {
                if from + 1 == symbols.len() || (symbols[from], symbols[from + 1]) != pair {
                    symbols[to] = symbols[from];
                    (from, to) = (from + 1, to + 1);
                    continue;
                }
                if to > 0 {
                    let before = symbols[to - 1];
                    self.take((before, pair.0), count);
                    self.add((before, id), count, place);
                    new.push((before, id));
                }
                if let Some(&after) = symbols.get(from + 2) {
                    self.take((pair.1, after), count);
                    self.add((id, after), count, place);
                    new.push((id, after));
                }
                symbols[to] = id;
                (from, to) = (from + 2, to + 1);
            }
            symbols.truncate(to);
            self.words[place as usize] = Word { symbols, count };
        }
        self.counts.remove(&pair);
        new.sort_unstable();
        new.dedup();
        new.retain(|pair| self.counts.get(pair).is_some_and(|&count| count > 0));
        new
    }

    fn take(&mut self, pair: Pair, count: i64) {
        if let Some(current) = self.counts.get_mut(&pair) {
            *current -= count;
        }
    }
}
