//! Results as a Markdown table.

use super::compare::{Column, Row};
use crate::metrics::Metric;

/// `rows` as a Markdown table, with a column for each of `columns` and the difference to it.
pub fn markdown(rows: &[Row], columns: &[Column]) -> String {
    let mut header = ["task", "version", "shots", "metric", "score", "±", "chance"].map(str::to_owned).to_vec();
    for column in columns {
        header.extend([column.name.clone(), "difference".to_owned()]);
    }
    let mut lines = vec![header];
    for row in rows {
        let shown = |value: f64| number(&row.metric, value);
        let optional = |value: Option<f64>| value.map(shown).unwrap_or_default();
        let mut line = vec![
            row.task.clone(),
            row.version.clone(),
            row.shots.clone(),
            row.metric.clone(),
            shown(row.score.value),
            optional(row.score.stderr),
            optional(row.score.chance),
        ];
        for beside in &row.beside {
            line.push(optional(beside.as_ref().map(|beside| beside.value)));
            line.push(beside.as_ref().map(|beside| beside.difference(row)).unwrap_or_default());
        }
        lines.push(line);
    }
    table(&lines, 3)
}

/// Shares in per cent.
pub(super) fn number(metric: &str, value: f64) -> String {
    match (Metric::is_share(metric), value.abs()) {
        (true, _) => format!("{:.2}", 100.0 * value),
        (false, 1e6..) => format!("{value:.3e}"),
        (false, _) => format!("{value:.3}"),
    }
}

/// A Markdown table of `lines`, the first of which is the header; behind the first `left` columns numbers stand on the right.
pub fn table(lines: &[Vec<String>], left: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            text += &if column < left { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
        }
        text += "|\n";
        if number == 0 {
            let rule = |(column, &width): (usize, &usize)| match column < left {
                true => format!("|{}", "-".repeat(width + 2)),
                false => format!("|{}:", "-".repeat(width + 1)),
            };
            text += &widths.iter().enumerate().map(rule).collect::<String>();
            text += "|\n";
        }
    }
    text
}
