//! A report as tables.

use comfy_table::{CellAlignment, Table, presets};
use openelm_bench::{Measurement, Phase, Report, Run};

const LEGEND: &str = "\
prefill: the logits of the last position alone. decode: token after token behind an empty or a filled cache.
limit: what the machine allows, reading every weight and the cached keys and values once per step, or multiplying with every
weight (2 operations each; the output projection for one position), whichever takes longer; \"set by\" says which. Attention is
not counted. Quantised weights are held against the int8 peak, floats against the f32 peak, bf16 against its own where the
processor is faster at it.
first token: from a new session with the prompt to its logits. load: from files in the page cache to a session.
";

/// The report as a person reads it.
pub fn render(report: &Report) -> String {
    let mut limits = table(&["threads", "reading", "f32", "bf16", "int8", "int8 by"]);
    for of in &report.limits {
        limits.add_row([
            of.threads.to_string(),
            format!("{:.1} GB/s", of.bytes_per_second / 1e9),
            format!("{:.0} GFLOP/s", of.f32_operations_per_second / 1e9),
            of.bf16_operations_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{:.0} GFLOP/s", rate / 1e9)),
            format!("{:.0} GOP/s", of.int8_operations_per_second / 1e9),
            of.int8_instructions.to_owned(),
        ]);
    }
    let mut models = table(&["weights", "threads", "size", "load", "peak memory", "without files"]);
    for run in &report.runs {
        models.add_row([
            run.weights.clone(),
            run.threads.to_string(),
            mebibytes(Some(run.weight_bytes)),
            format!("{:.0} ms", 1e3 * run.load_seconds),
            mebibytes(run.peak_memory_bytes),
            mebibytes(run.private_memory_bytes),
        ]);
    }
    let beside_peer = report.runs.iter().any(|run| run.peer_weights.is_some());
    let mut headers = vec!["weights", "threads", "step", "tokens/s", "limit", "set by", "share", "first token"];
    if beside_peer {
        headers.extend(["llama-bench", "its weights", "ratio"]);
    }
    let mut rates = table(&headers);
    for run in &report.runs {
        for measurement in &run.measurements {
            let mut row = rate_row(run, measurement);
            if beside_peer {
                row.extend(peer_cells(run, measurement));
            }
            rates.add_row(row);
        }
    }
    let adapted = report.runs.iter().map(|run| run.adapter_parameters).max().filter(|&parameters| parameters > 0);
    let adapted = adapted.map_or(String::new(), |parameters| {
        format!(", with adapters of {:.1} M parameters at work", parameters as f64 / 1e6)
    });
    format!(
        "{limits}\n\n{models}\n\n{rates}\n\nmedians of {} rounds, keys and values in {}{adapted}\n{LEGEND}",
        report.rounds, report.cache
    )
}

fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(headers.to_vec());
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn rate_row(run: &Run, measurement: &Measurement) -> Vec<String> {
    let step = match measurement.phase {
        Phase::Prefill => format!("prefill {}", measurement.tokens),
        Phase::Decode => format!("decode {} behind {}", measurement.tokens, measurement.cached),
        Phase::Batch => format!("decode {} of {} sequences", measurement.tokens, measurement.sequences),
    };
    let first_token = measurement.first_token_seconds.map(|seconds| format!("{:.0} ms", 1e3 * seconds));
    vec![
        run.weights.clone(),
        run.threads.to_string(),
        step,
        rate(measurement.tokens_per_second),
        rate(measurement.limit_tokens_per_second),
        measurement.bound.to_string(),
        format!("{:.0} %", 100.0 * measurement.share),
        or_dash(first_token),
    ]
}

fn peer_cells(run: &Run, measurement: &Measurement) -> [String; 3] {
    [
        or_dash(measurement.peer_tokens_per_second.map(rate)),
        or_dash(run.peer_weights.clone()),
        or_dash(measurement.ratio.map(|ratio| format!("{ratio:.2}x"))),
    ]
}

/// Four digits or so.
fn rate(tokens_per_second: f64) -> String {
    let decimals = if tokens_per_second < 100.0 { 1 } else { 0 };
    format!("{tokens_per_second:.decimals$}")
}

fn mebibytes(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| format!("{:.0} MiB", bytes as f64 / (1u64 << 20) as f64)))
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use openelm_bench::{Bound, Limits};

    use super::*;

    #[test]
    fn a_report_shows_rate_limit_share_and_ratio() {
        let limits = Limits {
            threads: 2,
            bytes_per_second: 24.7e9,
            f32_operations_per_second: 327e9,
            bf16_operations_per_second: Some(640e9),
            int8_operations_per_second: 1389e9,
            int8_instructions: "AVX-512 VNNI",
        };
        let prefill = Measurement {
            phase: Phase::Prefill,
            tokens: 512,
            cached: 0,
            sequences: 1,
            tokens_per_second: 1234.5,
            limit_tokens_per_second: 2469.0,
            bound: Bound::Int8,
            share: 0.5,
            first_token_seconds: Some(0.4321),
            peer_tokens_per_second: Some(411.5),
            ratio: Some(3.0),
        };
        let decode = Measurement {
            phase: Phase::Decode,
            tokens: 64,
            cached: 1984,
            tokens_per_second: 57.25,
            limit_tokens_per_second: 114.5,
            bound: Bound::Memory,
            first_token_seconds: None,
            ..prefill.clone()
        };
        let run = Run {
            weights: "mlx4".to_owned(),
            weight_bytes: 150 << 20,
            parameters: 1,
            adapter_parameters: 0,
            threads: 2,
            peer_weights: Some("q4_0".to_owned()),
            load_seconds: 0.012,
            peak_memory_bytes: Some(200 << 20),
            private_memory_bytes: None,
            measurements: vec![prefill, decode],
        };
        let report = Report { rounds: 3, cache: "f16".to_owned(), limits: vec![limits], runs: vec![run] };
        insta::assert_snapshot!(render(&report));
        let mut alone = report;
        alone.runs[0].peer_weights = None;
        assert!(!render(&alone).contains("llama-bench"));
    }
}
