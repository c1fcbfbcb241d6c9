//! How this program was built, and by whom it was started.

use std::sync::LazyLock;

/// What `--version` says: the version, and the features that this program was built with, of those there are.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all = [
        ("hub", cfg!(feature = "hub")),
        ("parquet", cfg!(feature = "parquet")),
        ("text-repair", cfg!(feature = "text-repair")),
        ("object-store", cfg!(feature = "object-store")),
        ("mpi", cfg!(feature = "mpi")),
    ];
    let list = |built: bool| {
        let names: Vec<&str> = all.iter().filter(|(_, with)| *with == built).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    format!("{}\nfeatures: {}\nnot built in: {}", env!("CARGO_PKG_VERSION"), list(true), list(false))
});

/// The number of processes that an MPI launcher says it started, if it is more than one and this program does not know MPI.
pub fn strangers() -> Option<u32> {
    if cfg!(feature = "mpi") {
        return None;
    }
    // Open MPI; MPICH and Intel MPI; MVAPICH.
    let variables = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];
    variables.iter().find_map(|name| std::env::var(name).ok()?.parse().ok()).filter(|&count| count > 1)
}
