//! Layer-wise scaling as a picture: parameters per layer, beside a uniform model of the same size.

use anyhow::{Result, anyhow};
use openelm_model::ModelConfig;
use plotters::prelude::*;

/// Draws the parameters of each layer, attention below and feed-forward network above, and the line of a uniform model
/// with the same total; gives an SVG.
pub fn draw(config: &ModelConfig) -> Result<String> {
    let mut svg = String::new();
    draw_into(config, &mut svg).map_err(|e| anyhow!("the picture cannot be drawn: {e}"))?;
    Ok(svg)
}

fn draw_into(config: &ModelConfig, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let layers = config.layers.len();
    let millions: Vec<f64> = (0..layers).map(|index| config.layer_parameters(index) as f64 / 1e6).collect();
    let attention: Vec<f64> = config
        .layers
        .iter()
        .map(|layer| {
            let out = layer.query_heads * config.head_dim;
            ((config.qkv_dim(layer) + out) * config.model_dim) as f64 / 1e6
        })
        .collect();
    let uniform = millions.iter().sum::<f64>() / layers as f64;
    let top = 1.1 * millions.iter().copied().fold(uniform, f64::max);

    let root = SVGBackend::with_string(svg, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let caption = format!("Parameters per layer: {:.1} M in {layers} layers", millions.iter().sum::<f64>());
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..layers as f64 - 0.5, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_desc("layer")
        .y_desc("millions")
        .x_labels(layers.min(40))
        .x_label_formatter(&|layer| format!("{layer:.0}"))
        .draw()?;
    let (dark, light, red) = (RGBColor(30, 90, 170), RGBColor(140, 185, 230), RGBColor(200, 60, 40));
    let bars = |colour: RGBColor, spans: Vec<(f64, f64)>| {
        spans.into_iter().enumerate().map(move |(layer, (low, high))| {
            Rectangle::new([(layer as f64 - 0.4, low), (layer as f64 + 0.4, high)], colour.filled())
        })
    };
    let swatch = |colour: RGBColor| move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled());
    let lower = attention.iter().map(|&a| (0.0, a)).collect();
    let upper = attention.iter().zip(&millions).map(|(&a, &all)| (a, all)).collect();
    chart.draw_series(bars(dark, lower))?.label("attention").legend(swatch(dark));
    chart.draw_series(bars(light, upper))?.label("feed-forward").legend(swatch(light));
    let line = LineSeries::new([(-0.5, uniform), (layers as f64 - 0.5, uniform)], red.stroke_width(2));
    chart.draw_series(line)?.label("uniform, equal total").legend(swatch(red));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
