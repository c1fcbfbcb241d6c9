//! The loss curve of a run as a picture.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::log::Entry;

/// Colours of the validation corpora, in the order of their names.
const VALIDATION: [RGBColor; 4] =
    [RGBColor(200, 60, 40), RGBColor(40, 140, 70), RGBColor(150, 80, 170), RGBColor(210, 140, 20)];

/// Draws training and validation loss over the updates; gives an SVG.
pub(super) fn loss_curve(entries: &[Entry]) -> Result<String, Box<dyn std::error::Error>> {
    let mut training = Vec::new();
    let mut validation: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Step(entry) => training.push((entry.step as f64, entry.loss)),
            Entry::Validation(entry) if entry.validation_loss.is_finite() => {
                validation.entry(&entry.corpus).or_default().push((entry.step as f64, entry.validation_loss));
            }
            Entry::Validation(_) | Entry::Sample(_) | Entry::Metrics(_) => {}
        }
    }
    let points = || training.iter().chain(validation.values().flatten()).copied();
    let last = points().map(|(step, _)| step).fold(1.0, f64::max);
    let high = points().map(|(_, loss)| loss).fold(0.0, f64::max);
    let low = points().map(|(_, loss)| loss).fold(high, f64::min);
    let margin = 0.05 * (high - low).max(0.1);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 500)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Loss", ("sans-serif", 22))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
        chart
            .configure_mesh()
            .x_desc("updates")
            .y_desc("nats per token")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|loss| format!("{loss:.2}"))
            .light_line_style(WHITE)
            .draw()?;
        let pale = RGBColor(170, 200, 235);
        let strong = RGBColor(30, 90, 170);
        chart.draw_series(LineSeries::new(training.iter().copied(), &pale))?;
        let legend =
            |colour: RGBColor| move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2));
        let losses: Vec<f64> = training.iter().map(|&(_, loss)| loss).collect();
        let smooth = training.iter().map(|&(step, _)| step).zip(smoothed(&losses));
        chart.draw_series(LineSeries::new(smooth, strong.stroke_width(2)))?.label("training").legend(legend(strong));
        for (index, (&corpus, points)) in validation.iter().enumerate() {
            let colour = VALIDATION[index % VALIDATION.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line)?.label(corpus).legend(legend(colour));
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 2, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .border_style(BLACK)
            .label_font(("sans-serif", 14))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// A moving average that forgets over about a fiftieth of the run.
fn smoothed(losses: &[f64]) -> Vec<f64> {
    let keep = 1.0 - 1.0 / (losses.len() as f64 / 50.0).max(1.0);
    let mut mean = losses.first().copied().unwrap_or_default();
    let smooth = |loss: &f64| {
        mean = keep * mean + (1.0 - keep) * loss;
        mean
    };
    losses.iter().map(smooth).collect()
}

#[cfg(test)]
mod tests {
    use super::super::log::{StepEntry, ValidationEntry};
    use super::*;

    #[test]
    fn the_picture_shows_both_curves() {
        let mut entries: Vec<Entry> = (1..=100)
            .map(|step| {
                let loss = 8.0 / (step as f64).sqrt();
                let rates = (1e-3, 1.0, 1e4);
                let (lr, gradient_norm, tokens_per_second) = rates;
                Entry::Step(StepEntry { step, tokens: 0, epoch: 0, loss, lr, gradient_norm, tokens_per_second })
            })
            .collect();
        assert!(loss_curve(&entries).unwrap().contains("nats per token"));
        for (corpus, validation_loss) in [("books", 2.0), ("web", 3.0), ("web", f64::NAN)] {
            let corpus = corpus.to_owned();
            let validation_metrics = std::collections::BTreeMap::new();
            let entry = ValidationEntry { step: 50, corpus, validation_loss, validation_tokens: 1, validation_metrics };
            entries.push(Entry::Validation(entry));
        }
        let svg = loss_curve(&entries).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("books") && svg.contains("web"), "{svg}");
        loss_curve(&[]).unwrap();
    }
}
