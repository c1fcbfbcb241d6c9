//! Examples in front of a document, chosen as the harness chooses them.

use serde_json::Value;

use crate::EvalError;
use crate::data::Documents;
use crate::python::random::Random;
use crate::task::{Harness, ShotOrder, Task};

/// The seed that the harness draws shots with.
pub const SEED: u32 = 1234;

/// Chooses the shots of each document of a task in turn. The generator goes on from document to document, so that all of
/// them have to be asked for in order.
pub struct Shots {
    pool: Documents,
    random: Random,
    count: usize,
    order: ShotOrder,
    spare: bool,
    harness: Harness,
    task: String,
}

impl Shots {
    /// `count` shots for each document of `task` out of `pool`.
    ///
    /// # Errors
    /// If the pool is too small.
    pub fn new(task: &Task, pool: Documents, count: usize, seed: u32) -> Result<Self, EvalError> {
        let (order, spare) = task.shots.as_ref().map_or((ShotOrder::Random, false), |shots| (shots.order, shots.spare));
        let (random, harness, task) = (Random::new(seed), task.harness, task.name.clone());
        let shots = Self { pool, random, count, order, spare, harness, task };
        if shots.drawn() > shots.pool.len() { Err(shots.too_few(shots.drawn(), shots.pool.len())) } else { Ok(shots) }
    }

    fn too_few(&self, wanted: usize, available: usize) -> EvalError {
        EvalError::Shots { task: self.task.clone(), wanted, available, path: self.pool.path().to_owned() }
    }

    /// Documents drawn for each.
    fn drawn(&self) -> usize {
        self.count + usize::from(self.spare && self.order == ShotOrder::Random)
    }

    /// The pool that shots are drawn from.
    pub fn pool(&self) -> &Documents {
        &self.pool
    }

    /// Number of shots.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The shots of `document`, whose turn it is, as places in the pool.
    ///
    /// # Errors
    /// If too few are left without the document itself.
    pub fn choose(&mut self, document: &Value) -> Result<Vec<usize>, EvalError> {
        let drawn = match self.order {
            ShotOrder::First => (0..self.count).collect(),
            ShotOrder::Random => self.random.sample(self.pool.len(), self.drawn()),
        };
        // The newer harness looks for the document itself only where it expects it.
        if self.harness > Harness::V0_4_9_1 && !self.spare {
            return Ok(drawn);
        }
        let others: Vec<usize> = self.others(drawn, document)?.into_iter().take(self.count).collect();
        if others.len() == self.count || self.harness <= Harness::V0_4_9_1 {
            return Ok(others);
        }
        let pool = self.others((0..self.pool.len()).collect(), document)?;
        if self.count > pool.len() {
            return Err(self.too_few(self.count, pool.len()));
        }
        Ok(self.random.sample(pool.len(), self.count).into_iter().map(|place| pool[place]).collect())
    }

    /// Those of `places` in the pool where another document than `document` is.
    fn others(&self, places: Vec<usize>, document: &Value) -> Result<Vec<usize>, EvalError> {
        let mut others = Vec::with_capacity(places.len());
        for place in places {
            if self.pool.get(place)?.1 != *document {
                others.push(place);
            }
        }
        Ok(others)
    }
}
