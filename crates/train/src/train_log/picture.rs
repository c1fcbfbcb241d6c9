//! Runs beside each other as a picture.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::curves::{Curves, Point, smoothing};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Points and what they are called.
type Named = (String, Vec<Point>);

/// A line of a chart: what it is called, its points, and which colour it has.
struct Line {
    label: String,
    points: Vec<Point>,
    colour: RGBColor,
}

/// One colour for each run, in turn.
const COLOURS: [RGBColor; 6] = [
    RGBColor(30, 90, 170),
    RGBColor(200, 60, 40),
    RGBColor(40, 140, 70),
    RGBColor(150, 80, 170),
    RGBColor(210, 140, 20),
    RGBColor(90, 90, 90),
];

/// Draws training loss (smoothed), validation loss and learning rate of `runs` over the tokens; gives an SVG.
///
/// # Errors
/// If the drawing library refuses.
pub fn draw(runs: &[Curves]) -> Result<String, Box<dyn std::error::Error>> {
    let lines = |points: &dyn Fn(&Curves) -> Vec<Named>| -> Vec<Line> {
        let coloured = runs.iter().zip(COLOURS.iter().cycle());
        let of_run = |(run, &colour): (&Curves, &RGBColor)| {
            points(run).into_iter().map(move |(label, points)| Line { label, points, colour }).collect::<Vec<_>>()
        };
        coloured.flat_map(of_run).collect()
    };
    let training = lines(&|run| vec![(run.name.clone(), run.smoothed(smoothing(runs)))]);
    let validation = lines(&|run| {
        let named = run.validation.iter();
        named.map(|(corpus, points)| (format!("{}: {corpus}", run.name), points.clone())).collect()
    });
    let rate = lines(&|run| vec![(run.name.clone(), run.rate.clone())]);
    let mut charts = vec![("training loss, smoothed", "nats per token", training)];
    if !validation.is_empty() {
        charts.push(("validation loss", "nats per token", validation));
    }
    charts.push(("learning rate", "", rate));

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 340 * charts.len() as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, (caption, unit, lines)) in root.split_evenly((charts.len(), 1)).iter().zip(&charts) {
            chart(area, caption, unit, lines)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn chart(area: &Area<'_>, caption: &str, unit: &str, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|point| point.tokens).fold(1.0, f64::max);
    let high = points().map(|point| point.value).fold(f64::MIN_POSITIVE, f64::max);
    let low = points().map(|point| point.value).fold(high, f64::min);
    let margin = 0.05 * (high - low).max(0.02 * high);
    let (scale, tokens) = match last {
        ..1e5 => (1.0, "tokens"),
        1e5..1e9 => (1e6, "million tokens"),
        1e9..1e12 => (1e9, "billion tokens"),
        _ => (1e12, "trillion tokens"),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc(tokens)
        .y_desc(unit)
        .x_label_formatter(&|tokens| format!("{}", (100.0 * tokens / scale).round() / 100.0))
        .y_label_formatter(&|value| if high < 0.1 { format!("{value:.1e}") } else { format!("{value:.2}") })
        .light_line_style(WHITE)
        .draw()?;
    for Line { label, points, colour } in lines {
        let points = points.iter().map(|point| (point.tokens, point.value));
        let colour = *colour;
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?.label(label).legend(legend);
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}
