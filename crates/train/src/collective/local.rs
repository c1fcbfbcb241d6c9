//! Ranks that are threads of one process.

use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Collective, CollectiveError, share};

/// What one rank brings to a meeting.
type Post = Vec<u8>;

struct Group {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    posts: Vec<Post>,
    arrived: usize,
    meetings: u64,
    /// What was brought to the meeting before.
    met: Arc<Vec<Post>>,
    gone: Option<usize>,
}

/// One of several ranks within a process. When one is dropped, those that wait for it get an error.
pub struct Local {
    rank: usize,
    group: Arc<Group>,
}

impl Local {
    /// What `task` gives on each of `ranks` ranks, which are threads of their own.
    ///
    /// ```
    /// use openelm_train::collective::{Collective, Local};
    ///
    /// let sums = Local::on_each(2, |rank| {
    ///     let mut values = [1.0 + rank.rank() as f32];
    ///     rank.all_reduce(&mut values).map(|()| values)
    /// });
    /// for sum in sums {
    ///     assert_eq!(sum?, [3.0]);
    /// }
    /// # Ok::<_, openelm_train::collective::CollectiveError>(())
    /// ```
    ///
    /// # Panics
    /// If `task` does, on one of them.
    pub fn on_each<T: Send>(ranks: usize, task: impl Fn(Self) -> T + Sync) -> Vec<T> {
        let state = State { posts: vec![Post::new(); ranks], arrived: 0, meetings: 0, met: Arc::default(), gone: None };
        let group = Arc::new(Group { ranks, state: Mutex::new(state), changed: Condvar::new() });
        std::thread::scope(|scope| {
            let rank = |rank| Self { rank, group: group.clone() };
            let running: Vec<_> = (0..ranks).map(rank).map(|rank| scope.spawn(|| task(rank))).collect();
            running.into_iter().map(|rank| rank.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.group.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every rank brought its post, and gives all of them.
    fn meet(&self, post: Post) -> Result<Arc<Vec<Post>>, CollectiveError> {
        let mut state = self.state();
        state.posts[self.rank] = post;
        state.arrived += 1;
        let meeting = state.meetings;
        if state.arrived == self.group.ranks {
            state.arrived = 0;
            state.meetings += 1;
            let posts = std::mem::replace(&mut state.posts, vec![Post::new(); self.group.ranks]);
            state.met = Arc::new(posts);
            self.group.changed.notify_all();
        }
        // Who left after the meeting does not matter to it.
        while state.meetings == meeting {
            if let Some(rank) = state.gone {
                return Err(CollectiveError::Lost { rank });
            }
            state = self.group.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.met.clone())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.state().gone.get_or_insert(self.rank);
        self.group.changed.notify_all();
    }
}

impl Collective for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.group.ranks
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.meet(Post::new()).map(drop)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        let post = if self.rank == 0 { bytes.clone() } else { Post::new() };
        bytes.clone_from(&self.meet(post)?[0]);
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>, CollectiveError> {
        let posts = self.meet(bytemuck::cast_slice(values).to_vec())?;
        Ok(posts.iter().flat_map(|post| bytemuck::pod_collect_to_vec::<u8, f64>(post)).collect())
    }

    fn exchange(&self, values: &[f32]) -> Result<Vec<f32>, CollectiveError> {
        let posts = self.meet(bytemuck::cast_slice(values).to_vec())?;
        let mine = share(values.len(), self.rank, self.group.ranks);
        let mine = mine.start * size_of::<f32>()..mine.end * size_of::<f32>();
        Ok(posts.iter().flat_map(|post| bytemuck::pod_collect_to_vec::<u8, f32>(&post[mine.clone()])).collect())
    }

    fn all_gather(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let (length, ranks) = (values.len(), self.group.ranks);
        let mine = &values[share(length, self.rank, ranks)];
        let posts = self.meet(bytemuck::cast_slice(mine).to_vec())?;
        for (rank, post) in posts.iter().enumerate() {
            bytemuck::cast_slice_mut(&mut values[share(length, rank, ranks)]).copy_from_slice(post);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_gives_every_rank_its_part() {
        let length = 3 * 4096 + 5;
        let value = |rank: usize, i: usize| (rank * 10 + i % 7) as f32;
        for ranks in [1, 2, 3, 4] {
            let sum = |i: usize| (0..ranks).map(|rank| value(rank, i)).sum::<f32>();
            Local::on_each(ranks, |own| {
                let rank = own.rank();
                let mut all: Vec<f32> = (0..length).map(|i| value(rank, i)).collect();
                let mut part = all.clone();
                own.all_reduce(&mut all).unwrap();
                assert!(all.iter().enumerate().all(|(i, &x)| x == sum(i)));
                own.reduce_scatter(&mut part).unwrap();
                let mine = share(length, rank, ranks);
                let expected = |i: usize| if mine.contains(&i) { sum(i) } else { value(rank, i) };
                assert!(part.iter().enumerate().all(|(i, &x)| x == expected(i)));
                own.all_gather(&mut part).unwrap();
                assert_eq!(part, all);
                let gathered = own.gather(&[rank as f64, 0.5]).unwrap();
                assert!(gathered.chunks(2).enumerate().all(|(q, pair)| pair == [q as f64, 0.5]));
                let mut bytes = vec![rank as u8; 3 * (1 - rank.min(1))];
                own.broadcast(&mut bytes).unwrap();
                assert_eq!(bytes, [0, 0, 0]);
                own.barrier().unwrap();
            });
        }
    }

    #[test]
    fn a_rank_that_ends_early_is_an_error_and_no_hang() {
        let results = Local::on_each(3, |own| match own.rank() {
            1 => Ok(()),
            _ => own.barrier(),
        });
        assert!(results[1].is_ok());
        for rank in [0, 2] {
            let message = results[rank].as_ref().unwrap_err().to_string();
            assert!(message.contains("ended before the others"), "{message}");
        }
    }
}
