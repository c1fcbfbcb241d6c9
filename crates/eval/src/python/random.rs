//! CPython's `random.Random`: MT19937 seeded by `init_by_array`, and how its methods draw from it.

use std::collections::HashSet;

use rand_mt::Mt;

/// A generator that gives what `random.Random(seed)` gives.
pub struct Random(Mt);

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `random()`: a number in `[0, 1)` with 53 bits.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `_randbelow(end)`: as many bits as `end` has, until they make a number below it.
    fn below(&mut self, end: u32) -> usize {
        loop {
            let drawn = self.0.next_u32() >> end.leading_zeros();
            if drawn < end {
                return drawn as usize;
            }
        }
    }

    /// The places that `sample(population, count)` draws from a population of `length`.
    ///
    /// # Panics
    /// If `count` is above `length`.
    pub fn sample(&mut self, length: usize, count: usize) -> Vec<usize> {
        assert!(count <= length, "a sample of {count} out of {length}");
        let end = length as u32;
        if length <= set_size(count) {
            let mut pool: Vec<usize> = (0..length).collect();
            return (0..count)
                .map(|i| {
                    let place = self.below(end - i as u32);
                    let last = pool[length - i - 1];
                    std::mem::replace(&mut pool[place], last)
                })
                .collect();
        }
        let mut drawn = HashSet::new();
        let mut places = Vec::with_capacity(count);
        while places.len() < count {
            let place = self.below(end);
            if drawn.insert(place) {
                places.push(place);
            }
        }
        places
    }

    /// `shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let place = self.below(i as u32 + 1);
            items.swap(i, place);
        }
    }
}

/// The largest population that `sample` copies instead of remembering what it drew.
fn set_size(count: usize) -> usize {
    let mut table = 1;
    while table < 3 * count {
        table *= 4;
    }
    if count > 5 { 21 + table } else { 21 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `random.Random(1234)` in CPython 3.11.
    #[test]
    fn draws_are_those_of_python() {
        let mut random = Random::new(1234);
        let units: Vec<f64> = (0..3).map(|_| random.unit()).collect();
        assert_eq!(units, UNITS);
        let mut random = Random::new(1234);
        assert_eq!(random.sample(40, 5), SMALL);
        assert_eq!(random.sample(10, 5), POOL);
        assert_eq!(random.sample(1000, 8), LARGE);
        assert_eq!(random.sample(80, 8), EIGHT);
        let mut items: Vec<usize> = (0..10).collect();
        random.shuffle(&mut items);
        assert_eq!(items, SHUFFLED);
    }

    const UNITS: [f64; 3] = [0.9664535356921388, 0.4407325991753527, 0.007491470058587191];
    const SMALL: [usize; 5] = [28, 7, 0, 5, 37];
    const POOL: [usize; 5] = [0, 1, 8, 6, 2];
    const LARGE: [usize; 8] = [242, 17, 31, 807, 16, 354, 663, 638];
    const EIGHT: [usize; 8] = [61, 78, 59, 19, 11, 23, 14, 1];
    const SHUFFLED: [usize; 10] = [1, 2, 6, 9, 4, 5, 0, 3, 7, 8];
}
