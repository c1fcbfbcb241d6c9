//! Results beside published scores and beside earlier ones, with what the difference is worth.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Results;
use super::published::PublishedModel;
use super::table::number;
use crate::EvalError;
use crate::metrics::{Metric, Score};

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Key of the task, or name of the group.
    pub task: String,
    /// Version of the task.
    pub version: String,
    /// Shots.
    pub shots: String,
    /// Name of the metric; of a group it is `mean`.
    pub metric: String,
    /// What was measured.
    pub score: Score,
    /// What others have, one for each column.
    pub beside: Vec<Option<Beside>>,
}

/// A score to compare with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beside {
    /// The other score.
    pub value: f64,
    /// Document by document, where both are known.
    pub paired: Option<Paired>,
}

/// Differences of the same documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paired {
    /// Documents that both have.
    pub documents: usize,
    /// Mean of this less the other.
    pub difference: f64,
    /// Its standard error.
    pub stderr: f64,
    /// How probable a difference as large is if there is none: of right and wrong answers the exact sign test (McNemar's), otherwise
    /// from the normal distribution.
    pub p: f64,
    /// Documents that one has right and the other wrong.
    pub flipped: usize,
}

/// Others' scores.
pub struct Column {
    /// The header.
    pub name: String,
    /// Where the scores are from.
    pub source: String,
    scores: Others,
}

enum Others {
    Published(PublishedModel),
    Earlier(Earlier),
}

/// A results folder.
pub struct Earlier {
    folder: PathBuf,
    results: Results,
}

impl Earlier {
    /// # Errors
    /// If there are no results in `folder`.
    pub fn open(folder: &Path) -> Result<Self, EvalError> {
        Ok(Self { folder: folder.to_owned(), results: Results::read(folder)? })
    }

    /// The results.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// What the documents of the task `key` gave for `metric`, by their place.
    ///
    /// # Errors
    /// If the samples cannot be read.
    pub fn values(&self, key: &str, metric: &str) -> Result<HashMap<u64, f64>, EvalError> {
        let path = self.folder.join("samples").join(format!("{key}.jsonl"));
        let file = std::fs::File::open(&path).map_err(EvalError::io(&path))?;
        let mut values = HashMap::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(EvalError::io(&path))?;
            let sample: Value = serde_json::from_str(&line).unwrap_or_default();
            let wrong =
                || EvalError::Results { path: path.clone(), reason: format!("a line is no sample: {line:.60}") };
            let index = sample["index"].as_u64().ok_or_else(wrong)?;
            if let Some(value) = sample["metrics"][metric].as_f64() {
                values.insert(index, value);
            }
        }
        Ok(values)
    }
}

impl Column {
    /// A model's published scores.
    pub fn published(model: PublishedModel) -> Self {
        Self { name: model.name.clone(), source: model.source.clone(), scores: Others::Published(model) }
    }

    /// An earlier results folder.
    pub fn earlier(earlier: Earlier) -> Self {
        let name = earlier.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = earlier.folder.display().to_string();
        Self { name, source, scores: Others::Earlier(earlier) }
    }
}

/// The lines of `results`, whose samples are in `folder` if there is one, beside `columns`.
///
/// # Errors
/// If samples cannot be read.
pub fn rows(results: &Results, folder: Option<&Path>, columns: &[Column]) -> Result<Vec<Row>, EvalError> {
    let own = folder.map(|folder| Earlier { folder: folder.to_owned(), results: results.clone() });
    let mut rows = Vec::new();
    for (key, task) in &results.tasks {
        for (metric, score) in &task.metrics {
            let beside = |column: &Column| match &column.scores {
                Others::Published(model) => {
                    Ok(model.score(&task.task, task.shots, metric).map(|value| Beside { value, paired: None }))
                }
                Others::Earlier(earlier) => {
                    let other = earlier.results.tasks.iter().find(|(_, other)| {
                        (&other.task, other.version, other.shots) == (&task.task, task.version, task.shots)
                    });
                    let Some((other_key, other)) = other else { return Ok(None) };
                    let Some(theirs) = other.metrics.get(metric) else { return Ok(None) };
                    let paired = match &own {
                        Some(own) => paired(&own.values(key, metric)?, &earlier.values(other_key, metric)?),
                        None => None,
                    };
                    Ok(Some(Beside { value: theirs.value, paired }))
                }
            };
            rows.push(Row {
                task: key.clone(),
                version: task.version.to_string(),
                shots: task.shots.to_string(),
                metric: metric.clone(),
                score: *score,
                beside: columns.iter().map(beside).collect::<Result<_, EvalError>>()?,
            });
        }
    }
    for (name, group) in &results.groups {
        let beside = |column: &Column| {
            let value = match &column.scores {
                Others::Published(model) => model.group(name),
                Others::Earlier(earlier) => earlier.results.groups.get(name).map(|group| group.score.value),
            };
            value.map(|value| Beside { value, paired: None })
        };
        rows.push(Row {
            task: name.clone(),
            version: String::new(),
            shots: String::new(),
            metric: "mean".to_owned(),
            score: group.score,
            beside: columns.iter().map(beside).collect(),
        });
    }
    Ok(rows)
}

impl Beside {
    /// The difference as the table shows it: with its standard error and what it is worth.
    pub(super) fn difference(&self, row: &Row) -> String {
        let shown = |value: f64| {
            let text = number(&row.metric, value);
            if value >= 0.0 { format!("+{text}") } else { text }
        };
        match self.paired {
            Some(Paired { difference, stderr, p, .. }) => {
                format!("{} ± {}, p = {p:.2}", shown(difference), number(&row.metric, stderr))
            }
            None => shown(row.score.value - self.value),
        }
    }
}

/// What the differences of the documents that both have are worth.
fn paired(ours: &HashMap<u64, f64>, theirs: &HashMap<u64, f64>) -> Option<Paired> {
    let mut both: Vec<(u64, f64)> =
        ours.iter().filter_map(|(index, x)| Some((*index, x - theirs.get(index)?))).collect();
    both.sort_by_key(|(index, _)| *index);
    let differences: Vec<f64> = both.into_iter().map(|(_, difference)| difference).collect();
    if differences.len() < 2 {
        return None;
    }
    let documents = differences.len();
    let difference = crate::metrics::mean(&differences);
    let stderr = crate::metrics::deviation(&differences) / (documents as f64).sqrt();
    let count = |sign: f64| differences.iter().filter(|&&x| x == sign).count();
    let flipped = count(1.0) + count(-1.0);
    let p = if flipped + count(0.0) == documents {
        sign_test(count(1.0), count(-1.0))
    } else if stderr == 0.0 {
        1.0
    } else {
        two_sided(difference / stderr)
    };
    Some(Paired { documents, difference, stderr, p, flipped })
}

/// How probable it is that of fair coins as few fall on one side as the smaller of the two, or fewer, on either side.
fn sign_test(better: usize, worse: usize) -> f64 {
    let coins = better + worse;
    // Logarithms of the binomial's terms: they are too small for floats else.
    let mut term = -(coins as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for fallen in 0..=better.min(worse) {
        sum += term.exp();
        term += ((coins - fallen) as f64 / (fallen + 1) as f64).ln();
    }
    f64::min(1.0, 2.0 * sum)
}

/// How probable it is that a normal variable is at least `z` standard deviations off: from the series of the error function, and for
/// large `z` from its continued fraction (Abramowitz and Stegun, 7.1.6 and 7.1.14).
fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - 2.0 * scale * sum
    } else {
        let tail = (1..60).rev().fold(x, |tail, n| x + f64::from(n) / 2.0 / tail);
        scale / tail
    }
}

/// Whether `metric` of a task is what a chart of shares shows.
pub(super) fn is_share(row: &Row) -> bool {
    row.metric == "mean" || Metric::is_share(&row.metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_and_normal_variables_are_those_of_the_tables() {
        // scipy.stats.binomtest(3, 15).pvalue, and 2 * scipy.stats.norm.sf(z).
        assert!((sign_test(3, 12) - 0.035_156_25).abs() < 1e-12);
        assert_eq!((sign_test(0, 0), sign_test(5, 5)), (1.0, 1.0));
        assert!(sign_test(1000, 2000) < 1e-70);
        for (z, p) in
            [(0.0, 1.0), (1.0, 0.317_310_507_862_914), (1.96, 0.049_995_790_296_44), (4.0, 6.334_248_366_623_98e-5)]
        {
            assert!((two_sided(z) - p).abs() < 1e-12, "{z}: {}", two_sided(z));
            assert_eq!(two_sided(z), two_sided(-z));
        }
    }

    #[test]
    fn documents_are_paired_by_their_place() {
        let ours: HashMap<u64, f64> = (0..100).map(|i| (i, f64::from(u8::from(i % 2 == 0)))).collect();
        let theirs: HashMap<u64, f64> = (0..90).map(|i| (i, f64::from(u8::from(i % 2 == 0 && i >= 10)))).collect();
        let found = paired(&ours, &theirs).unwrap();
        assert_eq!((found.documents, found.flipped), (90, 5));
        assert!((found.difference - 5.0 / 90.0).abs() < 1e-12 && (found.p - 0.0625).abs() < 1e-12);
    }
}
