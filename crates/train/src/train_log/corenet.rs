//! What CoreNet's trainer prints, as in the `training_logs.txt` that Apple published with the OpenELM weights.
//!
//! ```text
//! 2024-01-05 10:11:12 - LOGS    - Epoch:   0 [     500/  350000], loss: {'total_loss': 7.1}, LR: [0.0005], Avg. ...
//! 2024-01-05 10:11:12 - LOGS    - *** Validation summary for epoch 0
//!          loss={'total_loss': 6.9}
//! ```
//!
//! The words between dashes are coloured. The loss is CoreNet's running mean since the beginning of the epoch (or since the
//! run was started again), so it lags behind the losses of single updates.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::curves::{Curves, Point};

/// Adds the updates and validations in the log at `path` to `curves`.
pub(super) fn read(path: &Path, tokens_per_step: u64, curves: &mut Curves) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    let mut step = 0;
    let mut validation = false;
    // Whatever else was printed need not be UTF-8.
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        let point = |step: u64, value: f64| Point { step, tokens: step as f64 * tokens_per_step as f64, value };
        if let Some(update) = update(&line) {
            step = update.step;
            forget(&mut curves.training, step);
            forget(&mut curves.rate, step);
            // Those at this very step came behind it.
            curves.validation.values_mut().for_each(|points| forget(points, step + 1));
            curves.training.push(point(step, update.loss));
            curves.rate.push(point(step, update.rate));
        } else if line.contains("*** Validation summary") {
            validation = true;
        } else if std::mem::take(&mut validation)
            && let Some(loss) = loss(&line, "loss=")
        {
            let points = curves.validation.entry("validation".to_owned()).or_default();
            forget(points, step);
            points.push(point(step, loss));
        }
        bytes.clear();
    }
    Ok(())
}

/// Removes what comes from `step` on: a run that was started again repeats what came after its checkpoint.
fn forget(points: &mut Vec<Point>, step: u64) {
    let before = points.iter().rposition(|point| point.step < step).map_or(0, |last| last + 1);
    points.truncate(before);
}

struct Update {
    step: u64,
    loss: f64,
    rate: f64,
}

fn update(line: &str) -> Option<Update> {
    let (_, rest) = line.split_once("Epoch:")?;
    let (step, rest) = rest.split_once('[')?.1.split_once('/')?;
    Some(Update {
        step: step.trim().parse().ok()?,
        loss: loss(rest, "loss: ")?,
        rate: number(rest.split_once("LR:")?.1)?,
    })
}

/// The loss behind `key`: a number, or a dictionary whose `total_loss` counts.
fn loss(text: &str, key: &str) -> Option<f64> {
    let value = text.split_once(key)?.1;
    match value.trim_start().strip_prefix('{') {
        Some(dictionary) => number(dictionary.split_once("'total_loss':")?.1),
        None => number(value),
    }
}

/// The number at the beginning of `text`, or the first of a list.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_start().trim_start_matches('[');
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.e".contains(c))).unwrap_or(text.len());
    text[..end].parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Lines as CoreNet's `Statistics.iter_summary` and `epoch_summary` put them together.
    const LOG: &str = "2024-01-05 10:11:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - Training epoch 0\n\
        2024-01-05 10:11:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - Epoch:   0 [       1/  350000], loss: {'total_loss': \
        12.9152, 'ce_loss': 10.5}, LR: [1e-06], Avg. batch load time: 0.000, Elapsed time: 12.00\n\
        2024-01-05 10:21:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - Epoch:   0 [     500/  350000], loss: 7.25, \
        LR: 0.000530, Avg. batch load time: 0.000, Elapsed time: 600.00\n\
        2024-01-05 10:31:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - Epoch:   0 [    1000/  350000], loss: 6.5, LR: [0.00106]\n\
        2024-01-05 10:31:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - *** Validation summary for epoch 0\n\
        \t loss={'total_loss': 6.25}\n\
        2024-01-05 11:31:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - Epoch:   0 [    1000/  350000], loss: 6.0, LR: [0.00106]\n\
        2024-01-05 11:31:12 - \u{1b}[34m\u{1b}[1mLOGS   \u{1b}[0m - *** Validation summary for epoch 0\n\
        \t loss={'total_loss': 5.75}\n\
        Epoch: nonsense [\n";

    #[test]
    fn updates_and_validations_are_found_and_restarts_replace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("training_logs.txt");
        std::fs::write(&path, LOG).unwrap();
        let (training, rate, validation) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut curves = Curves { name: "270M".to_owned(), training, rate, validation };
        read(&path, 4, &mut curves).unwrap();
        let values = |points: &[Point]| points.iter().map(|p| (p.step, p.tokens, p.value)).collect::<Vec<_>>();
        assert_eq!(values(&curves.training), [(1, 4.0, 12.9152), (500, 2000.0, 7.25), (1000, 4000.0, 6.0)]);
        assert_eq!(values(&curves.rate), [(1, 4.0, 1e-6), (500, 2000.0, 0.00053), (1000, 4000.0, 0.00106)]);
        assert_eq!(values(&curves.validation["validation"]), [(1000, 4000.0, 5.75)]);
    }
}
