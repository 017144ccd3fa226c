//! Plots as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::AnyResult;

/// Points with error bars, or a line.
pub(crate) struct Series {
    name: String,
    /// x, y, error of y.
    points: Vec<(f64, f64, f64)>,
    joined: bool,
}

impl Series {
    /// Points with error bars.
    pub(crate) fn points(name: &str, points: Vec<(f64, f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, joined: false }
    }

    /// A line.
    pub(crate) fn line(name: &str, points: Vec<(f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| (x, y, 0.0)).collect();
        Self { name: name.to_owned(), points, joined: true }
    }
}

/// Told apart by people of every colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Writes one plot; its y axis holds zero.
pub(crate) fn save_svg(path: &Path, title: &str, x_label: &str, y_label: &str, series: &[Series]) -> AnyResult<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let points = || series.iter().flat_map(|s| &s.points).filter(|p| p.1.is_finite());
    let (x_min, x_max) = points().fold((f64::INFINITY, 0.0_f64), |(a, b), p| (a.min(p.0), b.max(p.0)));
    let y_max = points().map(|p| p.1 + p.2).fold(0.0, f64::max);
    let y_min = points().map(|p| p.1 - p.2).fold(0.0, f64::min);
    if !x_min.is_finite() {
        return Err("there is nothing to plot".into());
    }
    let room = 0.05 * (x_max - x_min).max(0.1);
    let area = SVGBackend::new(path, (760, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(x_min - room..x_max + room, 1.08 * y_min..1.08 * y_max)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(TRANSPARENT).draw()?;
    for (s, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let finite: Vec<_> = s.points.iter().copied().filter(|p| p.1.is_finite()).collect();
        let drawn = if s.joined {
            chart.draw_series(LineSeries::new(finite.iter().map(|p| (p.0, p.1)), style))?
        } else {
            for &(x, y, error) in &finite {
                chart.draw_series(LineSeries::new([(x, y - error), (x, y + error)], style))?;
            }
            chart.draw_series(finite.iter().map(|p| Circle::new((p.0, p.1), 4, colour.filled())))?
        };
        drawn.label(&s.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
