//! Ranks that are processes of an MPI job.

use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use mpi::{Count, Threading};

use super::{Collective, CollectiveError, share};

/// The MPI environment of this process; dropping it leaves the job in good order, together with all other ranks.
pub struct Job {
    _universe: Universe,
}

impl Job {
    /// Joins the job that the launcher started; a process without a launcher is a job of its own. `None` if this process
    /// is in a job already, or the MPI library does not let two threads take turns.
    pub fn join() -> Option<(Self, Mpi)> {
        // Gradients are reduced by a thread of their own while the backward pass runs; the two never call at once.
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)?;
        let world = universe.world();
        let ranks = Mpi { rank: world.rank() as usize, ranks: world.size() as usize };
        (threading >= Threading::Serialized).then_some((Self { _universe: universe }, ranks))
    }

    /// Ends the whole job, for the ranks that wait for this one cannot go on.
    pub fn abort(self) -> ! {
        SimpleCommunicator::world().abort(1)
    }
}

/// One rank of an MPI job. Where a rank is gone or the network fails, MPI ends the job: no operation gives an error.
#[derive(Debug, Clone, Copy)]
pub struct Mpi {
    rank: usize,
    ranks: usize,
}

impl Mpi {
    /// Sizes and offsets of all ranks' shares of `length` numbers.
    fn shares(&self, length: usize) -> (Vec<Count>, Vec<Count>) {
        let shares = (0..self.ranks).map(|rank| share(length, rank, self.ranks));
        shares.map(|share| (share.len() as Count, share.start as Count)).unzip()
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        SimpleCommunicator::world().barrier();
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), CollectiveError> {
        let world = SimpleCommunicator::world();
        let root = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        root.broadcast_into(&mut bytes[..]);
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>, CollectiveError> {
        let mut all = vec![0.0; values.len() * self.ranks];
        SimpleCommunicator::world().all_gather_into(values, &mut all[..]);
        Ok(all)
    }

    fn exchange(&self, values: &[f32]) -> Result<Vec<f32>, CollectiveError> {
        let (counts, offsets) = self.shares(values.len());
        let sent = Partition::new(values, counts, offsets);
        let mine = share(values.len(), self.rank, self.ranks).len();
        let mut parts = vec![0.0; mine * self.ranks];
        let counts = vec![mine as Count; self.ranks];
        let offsets: Vec<Count> = (0..self.ranks).map(|rank| (rank * mine) as Count).collect();
        let mut received = PartitionMut::new(&mut parts[..], counts, offsets);
        SimpleCommunicator::world().all_to_all_varcount_into(&sent, &mut received);
        Ok(parts)
    }

    fn all_gather(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let (counts, offsets) = self.shares(values.len());
        let mine = values[share(values.len(), self.rank, self.ranks)].to_vec();
        let mut all = PartitionMut::new(values, counts, offsets);
        SimpleCommunicator::world().all_gather_varcount_into(&mine[..], &mut all);
        Ok(())
    }
}
