//! The job that this process is a rank of: what `mpirun` or Slurm started, or this process alone.

use std::sync::Arc;

use anyhow::Result;
use openelm_train::collective::Collective;

/// Joins the job, and does this rank's `work` in it.
#[cfg(not(feature = "mpi"))]
pub fn join<T>(work: impl FnOnce(Arc<dyn Collective>) -> Result<T>) -> Result<T> {
    work(Arc::new(openelm_train::collective::Alone))
}

/// Joins the job, and does this rank's `work` in it. An error or a panic of one rank of several ends them all, for the others
/// wait for it.
#[cfg(feature = "mpi")]
pub fn join<T>(work: impl FnOnce(Arc<dyn Collective>) -> Result<T>) -> Result<T> {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use anyhow::Context;
    use openelm_train::collective::Job;

    let (job, rank) = Job::join().context("this MPI library does not let two threads take turns")?;
    // Nothing is looked at behind a panic.
    let result = catch_unwind(AssertUnwindSafe(|| work(Arc::new(rank))));
    match result {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) if rank.ranks() > 1 => {
            crate::tell(format!("error: rank {}: {}", rank.rank(), crate::sentence(&error)));
            job.abort()
        }
        Ok(Err(error)) => Err(error),
        Err(_) if rank.ranks() > 1 => job.abort(),
        Err(panic) => resume_unwind(panic),
    }
}
