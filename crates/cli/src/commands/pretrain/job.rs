//! The job that this process is a rank of: what `mpirun` or Slurm started, or this process alone.

use std::sync::Arc;

use anyhow::Result;
use openelm_train::collective::Collective;
#[cfg(feature = "mpi")]
use openelm_train::collective::{self, Mpi};

/// This process's place among the ranks that train together.
pub(super) struct Job {
    #[cfg(feature = "mpi")]
    mpi: (collective::Job, Mpi),
}

#[cfg(not(feature = "mpi"))]
impl Job {
    pub fn join() -> Result<Self> {
        Ok(Self {})
    }

    pub fn ranks(&self) -> Arc<dyn Collective> {
        Arc::new(openelm_train::collective::Alone)
    }

    /// Hands on a result.
    pub fn agree<T, E: std::error::Error + Send + Sync + 'static>(self, result: Result<T, E>) -> Result<T> {
        Ok(result?)
    }
}

#[cfg(feature = "mpi")]
impl Job {
    pub fn join() -> Result<Self> {
        use anyhow::Context;
        let mpi = collective::Job::join().context("this MPI library does not let two threads take turns")?;
        Ok(Self { mpi })
    }

    pub fn ranks(&self) -> Arc<dyn Collective> {
        Arc::new(self.mpi.1)
    }

    /// Hands on a result; an error of one rank of several ends them all, for the others wait for it.
    pub fn agree<T, E: std::error::Error + Send + Sync + 'static>(self, result: Result<T, E>) -> Result<T> {
        let (job, rank) = self.mpi;
        match result {
            Err(error) if rank.ranks() > 1 => {
                eprintln!("error: rank {}: {error}", rank.rank());
                job.abort()
            }
            result => Ok(result?),
        }
    }
}
