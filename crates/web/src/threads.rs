//! The workers of a page as threads.

use std::sync::{Mutex, PoisonError};

use openelm_kernels::{Threads, Worker, fused};
use wasm_bindgen::prelude::*;

/// Workers that nobody runs yet.
static WORKERS: Mutex<Vec<Worker>> = Mutex::new(Vec::new());
static THREADS: Mutex<Option<Threads>> = Mutex::new(None);

/// Makes a pool of `count` threads, the caller's included; as many others less one call [`work`]. Once, before a model is opened.
#[wasm_bindgen(js_name = beginThreads)]
pub fn begin_threads(count: usize) {
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = Threads::with_workers(count, |worker| workers.push(worker));
    *THREADS.lock().unwrap_or_else(PoisonError::into_inner) = Some(threads);
}

/// Takes part in what the first worker computes, and never returns.
#[wasm_bindgen]
pub fn work() {
    let worker = WORKERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    if let Some(worker) = worker {
        worker.run();
    }
}

/// The pool; without one, the calling thread alone.
pub(crate) fn threads() -> Threads {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(Threads::single)
}

/// Whether this module gives the results of all others on this machine: one with relaxed SIMD does not on processors without
/// fused multiply-adds.
#[wasm_bindgen(js_name = roundsOnce)]
pub fn rounds_once() -> bool {
    fused::is_exact()
}
