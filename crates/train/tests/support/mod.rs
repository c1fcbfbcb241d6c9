//! Recipes of small runs.

use openelm_testing::run::SmallRun;
use openelm_train::Recipe;

/// The recipe of `run` with the values that `sets` changes.
#[track_caller]
pub fn load(run: &SmallRun, sets: &[&str]) -> Recipe {
    Recipe::load(&run.recipe(), &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap()
}
