//! OpenELM's headline: the means of its three suites beside those of models of its size.

use super::Results;
use super::published::published;
use super::table::table;
use crate::EvalError;

/// The suites of the paper.
const SUITES: [(&str, &str); 3] = [("openelm-zero-shot", "zero-shot"), ("llm360", "LLM360"), ("openllm", "OpenLLM")];

/// The paper's comparison from published scores, and below it what was measured here: `measured` are results with what to call their
/// model.
///
/// # Errors
/// If the scores compiled in cannot be read, which a test rules out.
pub fn paper_table(measured: &[(String, Results)]) -> Result<String, EvalError> {
    let mut lines = vec![["model", "parameters", "tokens", "from"].map(str::to_owned).to_vec()];
    lines[0].extend(SUITES.map(|(_, title)| title.to_owned()));
    let mut sources: Vec<String> = Vec::new();
    for model in published()? {
        let means = SUITES.map(|(suite, _)| model.group(suite));
        if means.iter().all(Option::is_none) {
            continue;
        }
        // The released models have one source each, which differ in the name alone.
        let source = model.source.replace(&model.name.replace("1.1B", "1_1B"), "OpenELM-…");
        let place = sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        let about = [Some(model.name), model.size, model.tokens, Some(format!("[{}]", place + 1))];
        let mut line: Vec<String> = about.into_iter().map(Option::unwrap_or_default).collect();
        line.extend(means.map(|mean| mean.map(|mean| format!("{:.2}", 100.0 * mean)).unwrap_or_default()));
        lines.push(line);
    }
    for (name, results) in measured {
        let parameters = results.model["parameters"].as_u64().map(|count| match count {
            1_000_000_000.. => format!("{:.2}B", count as f64 / 1e9),
            _ => format!("{:.0}M", count as f64 / 1e6),
        });
        let mut line = vec![name.clone(), parameters.unwrap_or_default(), String::new(), "measured here".to_owned()];
        line.extend(SUITES.map(|(suite, _)| {
            let score = results.groups.get(suite).map(|group| group.score);
            let text = score.map(|score| match score.stderr {
                Some(stderr) => format!("{:.2} ± {:.2}", 100.0 * score.value, 100.0 * stderr),
                None => format!("{:.2}", 100.0 * score.value),
            });
            let limited = if results.settings.limit.is_some() { " (in part)" } else { "" };
            text.map(|text| text + limited).unwrap_or_default()
        }));
        lines.push(line);
    }
    let mut text = table(&lines, 4) + "\n";
    for (number, source) in sources.iter().enumerate() {
        text += &format!("[{}] {source}\n", number + 1);
    }
    Ok(text)
}
