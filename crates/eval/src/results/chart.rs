//! Shares as a bar chart.

use plotters::prelude::*;

use super::compare::{Column, Row, is_share};
use crate::EvalError;

/// One colour for each model, in turn.
const COLOURS: [RGBColor; 5] = [
    RGBColor(30, 90, 170),
    RGBColor(200, 60, 40),
    RGBColor(40, 140, 70),
    RGBColor(150, 80, 170),
    RGBColor(210, 140, 20),
];

/// A bar for each share among `rows`, with its standard error and a line where chance is, and beside it those of `columns`; gives an
/// SVG. `name` is what the model is called.
///
/// # Errors
/// If there is no share, or the drawing library refuses.
pub fn chart(name: &str, rows: &[Row], columns: &[Column]) -> Result<String, EvalError> {
    let rows: Vec<&Row> = rows.iter().filter(|row| is_share(row)).collect();
    if rows.is_empty() {
        return Err(EvalError::Chart("there is no accuracy to draw".to_owned()));
    }
    let mut svg = String::new();
    draw(name, &rows, columns, &mut svg).map_err(|e| EvalError::Chart(e.to_string()))?;
    Ok(svg)
}

fn draw(name: &str, rows: &[&Row], columns: &[Column], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let models = 1 + columns.len();
    let width = 160 + rows.len() as u32 * (30 + 26 * models as u32);
    let root = SVGBackend::with_string(svg, (width.max(640), 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(60)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..100.0)?;
    let label = |place: &f64| {
        let row = (place.fract() - 0.5).abs() < 0.01;
        rows.get(*place as usize).filter(|_| row).map(|row| row.task.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * rows.len() + 1)
        .x_label_formatter(&label)
        .x_label_style(("sans-serif", 11))
        .y_desc("per cent")
        .light_line_style(WHITE)
        .draw()?;
    // A bar's width, of the space of a row.
    let bar = 0.8 / models as f64;
    for model in 0..models {
        let colour = COLOURS[model % COLOURS.len()];
        let title = if model == 0 { name } else { &columns[model - 1].name };
        let values: Vec<(f64, f64, Option<f64>)> = rows
            .iter()
            .enumerate()
            .filter_map(|(place, row)| {
                let left = place as f64 + 0.1 + bar * model as f64;
                match model {
                    0 => Some((left, row.score.value, row.score.stderr)),
                    _ => row.beside.get(model - 1).and_then(Option::as_ref).map(|beside| (left, beside.value, None)),
                }
            })
            .collect();
        let bars = values.iter().map(|&(left, value, _)| {
            Rectangle::new([(left, 0.0), (left + 0.92 * bar, 100.0 * value)], colour.mix(0.8).filled())
        });
        let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.mix(0.8).filled());
        chart.draw_series(bars)?.label(title).legend(legend);
        let errors = values.iter().filter_map(|&(left, value, stderr)| {
            let (middle, stderr) = (left + 0.46 * bar, stderr?);
            let ends = [(middle, 100.0 * (value - stderr)), (middle, 100.0 * (value + stderr))];
            Some(PathElement::new(ends, BLACK.stroke_width(2)))
        });
        chart.draw_series(errors)?;
    }
    let chances = rows.iter().enumerate().filter_map(|(place, row)| {
        let (place, chance) = (place as f64, 100.0 * row.score.chance?);
        Some(PathElement::new([(place + 0.05, chance), (place + 0.95, chance)], BLACK.mix(0.6).stroke_width(1)))
    });
    let legend = |(x, y)| PathElement::new([(x, y), (x + 12, y)], BLACK.mix(0.6).stroke_width(1));
    chart.draw_series(chances)?.label("chance").legend(legend);
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 13))
        .draw()?;
    root.present()?;
    Ok(())
}
