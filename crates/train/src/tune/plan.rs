//! Which examples share a row, and in which order rows come.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Rows that wait for an example which fits.
const OPEN: usize = 64;

/// The numbers `0..count` in the order of the epoch `epoch`.
pub(super) fn order(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch);
    order.shuffle(&mut random);
    order
}

/// The examples of `order` in rows of at most `width` targets: each goes to the first of the open rows in which it fits. An example
/// has as many targets as `targets` says, none more than `width`.
pub(super) fn packed(order: &[u32], width: usize, targets: impl Fn(u32) -> usize) -> Vec<Vec<u32>> {
    let mut done = Vec::new();
    // Rows, and the room that is left in each, the oldest first.
    let mut open: Vec<(Vec<u32>, usize)> = Vec::new();
    for &example in order {
        let needed = targets(example);
        match open.iter().position(|(_, room)| *room >= needed) {
            Some(row) => {
                open[row].0.push(example);
                open[row].1 -= needed;
            }
            None => open.push((vec![example], width - needed.min(width))),
        }
        if open.len() > OPEN {
            done.push(open.remove(0).0);
        }
    }
    done.extend(open.into_iter().map(|(row, _)| row));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_one_row_and_rows_are_well_filled() {
        let targets = |example: u32| 20 + (example as usize * 7919) % 300;
        let order = order(5000, 3, 1);
        let rows = packed(&order, 512, targets);
        let mut seen: Vec<u32> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..5000));
        let filled = |row: &Vec<u32>| row.iter().map(|&example| targets(example)).sum::<usize>();
        assert!(rows.iter().all(|row| filled(row) <= 512));
        let share = rows.iter().map(filled).sum::<usize>() as f64 / (512 * rows.len()) as f64;
        assert!(share > 0.95, "{share} of the places are filled");
    }

    #[test]
    fn each_epoch_has_an_order_of_its_own_that_the_seed_decides() {
        assert_eq!(order(100, 5, 2), order(100, 5, 2));
        assert_ne!(order(100, 5, 2), order(100, 5, 3));
        assert_ne!(order(100, 5, 2), order(100, 6, 2));
    }
}
