//! A small persistent pool: decoding forks and joins about a hundred times per token, so workers spin briefly before they
//! sleep, and work is handed out by an atomic counter.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Rounds of busy waiting before a worker goes to sleep: some tens of microseconds, longer than the serial code between
/// two operations of a decode step.
const SPINS: u32 = 20_000;
/// Rounds after which others may have the processor now and then: a thread that is waited for may be among them.
const ALONE: u32 = 2_000;

/// The threads that an operation may use. Cheap to clone; the workers end with the last clone.
///
/// Results never depend on the number of threads: callers cut work into tasks by the shape of the data alone.
///
/// ```
/// let threads = openelm_kernels::Threads::new(2);
/// let mut squares = [0, 1, 2, 3, 4];
/// threads.for_each_chunk(&mut squares, 2, |_, chunk| chunk.iter_mut().for_each(|x| *x *= *x));
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// ```
#[derive(Clone)]
pub struct Threads {
    pool: Option<Arc<Pool>>,
}

impl Threads {
    /// A pool of `count` threads, the caller's included; 0 means one per physical core. Where the system gives fewer threads, or
    /// none as in a browser, it has fewer: [`Threads::count`] says how many.
    pub fn new(count: usize) -> Self {
        let count = if count == 0 { num_cpus::get_physical() } else { count };
        if count <= 1 {
            return Self { pool: None };
        }
        let shared = Arc::new(Shared::default());
        let workers: Vec<_> = (1..count)
            .filter_map(|index| {
                let worker = Worker(shared.clone());
                let name = format!("openelm-{index}");
                std::thread::Builder::new().name(name).spawn(move || worker.run()).ok()
            })
            .collect();
        if workers.is_empty() {
            return Self::single();
        }
        let count = workers.len() + 1;
        Self { pool: Some(Arc::new(Pool { shared, count, workers, turn: Mutex::new(()) })) }
    }

    /// A pool of `count` threads, the caller's included, where Rust cannot begin threads, as in a browser: each worker that is
    /// handed to `start` takes part from when somebody runs it on a thread of its own.
    pub fn with_workers(count: usize, start: impl FnMut(Worker)) -> Self {
        if count <= 1 {
            return Self::single();
        }
        let shared = Arc::new(Shared::default());
        (1..count).map(|_| Worker(shared.clone())).for_each(start);
        Self { pool: Some(Arc::new(Pool { shared, count, workers: Vec::new(), turn: Mutex::new(()) })) }
    }

    /// The calling thread alone.
    pub fn single() -> Self {
        Self { pool: None }
    }

    /// Number of threads, the caller's included.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.count)
    }

    /// Most bytes that operations keep between calls on `count` threads, but for what grows with their arguments: panels of
    /// weights on the calling thread, rows and blocks on each.
    pub const fn workspace(count: usize) -> usize {
        (10 << 20) + count * (1 << 20)
    }

    /// Calls `task(i)` once for each `i` in `0..tasks`, on any thread and in any order, and returns when all are done.
    ///
    /// # Panics
    /// A panic of a task is passed on to the caller once all threads have stopped. A task must not call back into the
    /// pool that runs it.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.run(tasks, &task),
            _ => (0..tasks).for_each(task),
        }
    }

    /// Calls `task(i, chunk)` for each piece of `data` of `length` elements (the last may be shorter).
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], length: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        let chunks = Chunks::new(data, length);
        // SAFETY: `run` calls the task once per index, so no chunk is borrowed twice at a time.
        self.run(chunks.count(), |i| task(i, unsafe { chunks.get(i) }));
    }

    /// Like [`Threads::for_each_chunk`] over two slices that are cut alike: `task(i, chunk_of_a, chunk_of_b)`.
    ///
    /// # Panics
    /// If the two are not cut into the same number of chunks.
    pub fn for_each_chunk2<A: Send, B: Send>(
        &self,
        (a, length_a): (&mut [A], usize),
        (b, length_b): (&mut [B], usize),
        task: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (a, b) = (Chunks::new(a, length_a), Chunks::new(b, length_b));
        assert_eq!(a.count(), b.count(), "slices cut into different numbers of chunks");
        // SAFETY: as in `for_each_chunk`.
        self.run(a.count(), |i| task(i, unsafe { a.get(i) }, unsafe { b.get(i) }));
    }
}

/// A mutable slice that threads share chunk by chunk.
pub(crate) struct Chunks<T> {
    start: *mut T,
    total: usize,
    length: usize,
}

// SAFETY: the pointer comes from a `&mut [T]` that outlives the value's use, and `get`'s contract keeps chunks apart.
unsafe impl<T: Send> Sync for Chunks<T> {}

impl<T> Chunks<T> {
    pub(crate) fn new(data: &mut [T], length: usize) -> Self {
        assert!(length > 0 || data.is_empty(), "chunks of no length");
        Self { start: data.as_mut_ptr(), total: data.len(), length: length.max(1) }
    }

    fn count(&self) -> usize {
        self.total.div_ceil(self.length)
    }

    /// Elements in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// # Safety
    /// The slice given to `new` is still borrowed, and no other chunk `i` is alive.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        // SAFETY: the caller keeps the chunk exclusive; `slice` checks the bounds.
        unsafe { self.slice(i * self.length, self.length.min(self.total - i * self.length)) }
    }

    /// # Safety
    /// The slice given to `new` is still borrowed, and no other borrow overlaps `start..start + length`.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.total && length <= self.total - start, "chunk beyond the slice");
        // SAFETY: in bounds by the line above, exclusive by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

/// A worker of a pool, to be run by a thread.
pub struct Worker(Arc<Shared>);

impl Worker {
    /// Works until the last clone of the pool is dropped.
    pub fn run(self) {
        self.0.work();
    }
}

struct Pool {
    shared: Arc<Shared>,
    /// Threads, the caller's included.
    count: usize,
    /// Those that this pool began itself.
    workers: Vec<std::thread::JoinHandle<()>>,
    /// One job at a time, whoever asks.
    turn: Mutex<()>,
}

/// The job of the moment: a task borrowed from a caller that waits until every worker that takes part has let go of it.
type Job = *const (dyn Fn(usize) + Sync);

#[derive(Default)]
struct Shared {
    job: UnsafeCell<Option<Job>>,
    gate: Gate,
    next: AtomicUsize,
    tasks: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    asleep: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: `job` is written only by the caller that holds `turn` while the gate is shut and nobody is inside, published by
// opening the gate (release), and read by workers that have entered (acquire).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is followed only while its owner waits in `Pool::run`.
unsafe impl Send for Shared {}

/// Who takes part in a job. Workers enter while the gate is open; the caller shuts it when no task is left, and then waits for
/// those inside alone: a worker that has not begun costs nothing, however late it comes.
///
/// One number holds it all, so that a worker cannot enter a job other than the one it saw: the number of the job, whether the
/// gate is open, and the workers inside.
#[derive(Default)]
struct Gate(AtomicU64);

impl Gate {
    const INSIDE: u64 = (1 << 16) - 1;
    const OPEN: u64 = 1 << 16;
    const JOB: u64 = 1 << 17;

    /// The number of the latest job.
    fn job(&self) -> u64 {
        self.0.load(Ordering::SeqCst) / Self::JOB
    }

    /// Begins the next job. The gate is shut, nobody inside.
    fn open(&self) {
        let next = (self.job() + 1) % (u64::MAX / Self::JOB);
        self.0.store(next * Self::JOB + Self::OPEN, Ordering::SeqCst);
    }

    /// Lets nobody in any more.
    fn shut(&self) {
        self.0.fetch_and(!Self::OPEN, Ordering::Relaxed);
    }

    /// Whether a worker may take part in `job`; if so, it is inside until it leaves.
    fn enter(&self, job: u64) -> bool {
        let may = |gate| (gate / Self::JOB == job && gate & Self::OPEN > 0).then_some(gate + 1);
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, may).is_ok()
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & Self::INSIDE == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits a moment.
fn pause(round: u32) {
    if round > ALONE && round.is_multiple_of(64) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

impl Pool {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased; this function does not return before the gate is shut and nobody inside, after
        // which no worker touches the job.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(task) };
        // SAFETY: the gate is shut with nobody inside and `turn` is held, so nobody else reads or writes the cell.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.gate.open();
        if *lock(&shared.asleep) > 0 {
            shared.wake.notify_all();
        }
        shared.take_tasks(task);
        shared.gate.shut();
        let mut round = 0u32;
        while !shared.gate.is_empty() {
            pause(round);
            round = round.wrapping_add(1);
        }
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.gate.open();
        drop(lock(&self.shared.asleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of tasks, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync)) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            seen = self.wait_beyond(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self.gate.enter(seen) {
                // SAFETY: the gate was open, so the cell was written before; its owner waits for this worker to leave.
                if let Some(job) = unsafe { *self.job.get() } {
                    // SAFETY: the pointee lives until this worker has left.
                    self.take_tasks(unsafe { &*job });
                }
                self.gate.leave();
            }
        }
    }

    /// Waits until there is a job other than `seen`: spinning at first, then asleep.
    fn wait_beyond(&self, seen: u64) -> u64 {
        for round in 0..SPINS {
            let now = self.gate.job();
            if now != seen {
                return now;
            }
            pause(round);
        }
        let mut asleep = lock(&self.asleep);
        *asleep += 1;
        loop {
            let now = self.gate.job();
            if now != seen {
                *asleep -= 1;
                return now;
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for count in [1, 2, 3, 7] {
            let threads = Threads::new(count);
            assert_eq!(threads.count(), count);
            for tasks in [0, 1, 2, 5, 1000] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.run(tasks, |i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_worker_that_has_not_begun_is_not_waited_for() {
        // As many workers as the processors cannot run at once, each of which would have to be scheduled.
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..2 * num_cpus::get() {
                scope.spawn(|| {
                    while busy.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let threads = Threads::new(16);
            let begin = std::time::Instant::now();
            for _ in 0..500 {
                let sum = AtomicUsize::new(0);
                threads.run(3, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 3);
            }
            let taken = begin.elapsed();
            busy.store(false, Ordering::Relaxed);
            // Waiting for fifteen others takes some turns of the scheduler, milliseconds each time.
            assert!(taken.as_secs() < 3, "{taken:?}");
        });
    }

    #[test]
    fn a_worker_enters_only_the_job_that_it_saw_and_while_it_is_open() {
        let gate = Gate::default();
        assert!(!gate.enter(gate.job()), "no job yet");
        gate.open();
        let first = gate.job();
        assert!(gate.enter(first) && gate.enter(first));
        gate.shut();
        assert!(!gate.enter(first), "shut");
        assert!(!gate.is_empty());
        gate.leave();
        gate.leave();
        assert!(gate.is_empty());
        gate.open();
        assert!(!gate.enter(first), "another job");
        assert!(gate.enter(gate.job()));
    }

    #[test]
    fn jobs_end_before_their_data_do_while_workers_come_late() {
        // Short jobs beside more threads than processors: workers see jobs that have ended meanwhile.
        let threads = Threads::new(9);
        for round in 0..5_000 {
            let mut data = vec![0; 1 + round % 7];
            threads.for_each_chunk(&mut data, 1, |i, chunk| chunk[0] = i + round);
            assert!(data.iter().enumerate().all(|(i, &x)| x == i + round));
        }
    }

    #[test]
    fn workers_that_others_run_take_part_however_late() {
        let mut workers = Vec::new();
        let threads = Threads::with_workers(3, |worker| workers.push(worker));
        assert_eq!((threads.count(), workers.len()), (3, 2));
        let sum = |threads: &Threads| {
            let sum = AtomicUsize::new(0);
            threads.run(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            sum.into_inner()
        };
        assert_eq!(sum(&threads), 4950, "nobody runs a worker yet");
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(|| worker.run());
            }
            // Two tasks wait for each other, so that another thread must have taken part.
            let met = AtomicUsize::new(0);
            threads.run(2, |_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
            assert_eq!(sum(&threads), 4950);
            drop(threads);
        });
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let threads = Threads::new(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            threads.run(100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let threads = Threads::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| threads.run(8, |i| assert_ne!(i, 5, "five"))));
        assert!(outcome.is_err());
        let mut data = vec![1; 10];
        threads.for_each_chunk(&mut data, 3, |i, chunk| chunk.fill(i));
        assert_eq!(data, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]);
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let threads = Threads::new(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        threads.run(10, |i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 45);
                    }
                });
            }
        });
    }
}
