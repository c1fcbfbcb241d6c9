//! Taking turns: on a machine that others use too, rates can be compared only if they were measured in the same minutes.

use std::fmt;

/// Medians of what was measured in turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Medians {
    /// Ours.
    pub ours: f64,
    /// The peer's, if there is one.
    pub peer: Option<f64>,
}

impl fmt::Display for Medians {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} tokens/s", self.ours)?;
        self.peer.map_or(Ok(()), |peer| write!(f, ", peer {peer:.1}"))
    }
}

/// Measures `ours`, the peer, `ours`, the peer and so on, `rounds` times each.
///
/// # Errors
/// The first that a measurement reports.
///
/// ```
/// let (mut ours, mut theirs) = ([3.0, 1.0, 2.0].into_iter(), [9.0, 8.0, 7.0].into_iter());
/// let mut peer = || theirs.next().ok_or("no more");
/// let medians = openelm_bench::alternate(3, || ours.next().ok_or("no more"), Some(&mut peer))?;
/// assert_eq!((medians.ours, medians.peer), (2.0, Some(8.0)));
/// # Ok::<(), &str>(())
/// ```
pub fn alternate<E>(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64, E>,
    mut peer: Option<&mut dyn FnMut() -> Result<f64, E>>,
) -> Result<Medians, E> {
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        of_ours.push(ours()?);
        if let Some(peer) = &mut peer {
            of_peer.push(peer()?);
        }
    }
    Ok(Medians { ours: median(&mut of_ours).unwrap_or(f64::NAN), peer: median(&mut of_peer) })
}

/// The middle value, of an even number the upper one; `None` of none.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
