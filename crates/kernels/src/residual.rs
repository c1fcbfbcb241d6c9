//! The residual connection.

use crate::Threads;

/// Elements in a task.
const TASK_ELEMENTS: usize = 16 * 1024;

/// `out += x`.
///
/// # Panics
/// If the two differ in length.
pub fn add(threads: &Threads, out: &mut [f32], x: &[f32]) {
    assert_eq!(out.len(), x.len(), "lengths differ");
    threads.for_each_chunk(out, TASK_ELEMENTS, |task, out| {
        out.iter_mut().zip(&x[task * TASK_ELEMENTS..]).for_each(|(out, x)| *out += x);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_added() {
        let x: Vec<f32> = (0..TASK_ELEMENTS + 3).map(|i| i as f32).collect();
        let mut out = x.clone();
        add(&Threads::new(2), &mut out, &x);
        assert!(out.iter().zip(&x).all(|(out, x)| *out == 2.0 * x));
    }
}
