//! Plots as SVG.

use plotters::prelude::*;

const SIZE: (u32, u32) = (720, 340);
const DOTS_SIZE: (u32, u32) = (900, 560);
const BLUE_INK: RGBColor = RGBColor(0x1f, 0x5f, 0x8b);
const RED_INK: RGBColor = RGBColor(0xb0, 0x3a, 0x2e);

const GRID_INK: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const LABELS: (&str, i32) = ("sans-serif", 14);

/// A plot that could not be drawn: too small a canvas, or values that are no numbers.
#[derive(Debug, thiserror::Error)]
#[error("a plot cannot be drawn: {0}")]
pub struct PlotError(String);

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

/// Bars, one a pair.
pub(crate) fn bars(title: &str, x: &str, y: &str, values: &[(f64, f64)], width: f64) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let (low, high) = bounds(values.iter().map(|(at, _)| *at));
        // A label a whole number, and no more than fit.
        let labels = (high - low + 2.0 * width) as usize + 1;
        let top = values.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.08;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 19))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(low - width..high + width, 0.0..top)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID_INK)
            .label_style(LABELS)
            .axis_desc_style(LABELS)
            .x_labels(labels.min(20))
            .x_label_formatter(&|at| format!("{at:.0}"))
            .y_label_formatter(&|count| format!("{count:.0}"))
            .draw()
            .map_err(failed)?;
        let bar = |(at, value): &(f64, f64)| {
            Rectangle::new([(at - width * 0.45, 0.0), (at + width * 0.45, *value)], BLUE_INK.filled())
        };
        chart.draw_series(values.iter().map(bar)).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// A curve through points that are in order.
pub(crate) fn curve(title: &str, x: &str, y: &str, points: &[(f64, f64)]) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let (low, high) = bounds(points.iter().map(|(at, _)| *at));
        let wide = ((high - low) * 0.03).max(high.abs() * 0.01).max(1e-9);
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 19))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d((low - wide).max(0.0).min(low)..high + wide, 0.0..102.0)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .light_line_style(WHITE)
            .bold_line_style(GRID_INK)
            .label_style(LABELS)
            .axis_desc_style(LABELS)
            .y_label_formatter(&|part| format!("{part:.0}"))
            .draw()
            .map_err(failed)?;
        chart.draw_series(LineSeries::new(points.iter().copied(), BLUE_INK.stroke_width(2))).map_err(failed)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// A point of a plot, with its label.
#[derive(Debug, Clone)]
pub struct Dot {
    /// Where to the right.
    pub x: f64,
    /// Where upwards.
    pub y: f64,
    /// What is written beside it, if it is on the frontier or the default and there is room.
    pub label: String,
    /// It is red.
    pub on_frontier: bool,
    /// It is ringed.
    pub is_default: bool,
}

/// Points with labels as SVG; those on the frontier are red, the default is ringed. They are not joined: the frontier is one in
/// more costs than a plot has axes.
pub fn dots(title: &str, x: &str, y: &str, dots: &[Dot]) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, DOTS_SIZE).into_drawing_area();
        let (left, right) = bounds(dots.iter().map(|dot| dot.x));
        let (low, high) = bounds(dots.iter().map(|dot| dot.y));
        let (wide, tall) = (((right - left) * 0.08).max(0.01), ((high - low) * 0.08).max(0.1));
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 19))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(left - wide..right + 2.0 * wide, low - tall..high + tall)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .light_line_style(WHITE)
            .bold_line_style(GRID_INK)
            .label_style(LABELS)
            .axis_desc_style(LABELS)
            .draw()
            .map_err(failed)?;
        let ink = |dot: &Dot| if dot.on_frontier { RED_INK } else { BLUE_INK };
        chart.draw_series(dots.iter().map(|dot| Circle::new((dot.x, dot.y), 4, ink(dot).filled()))).map_err(failed)?;
        let default = dots.iter().filter(|dot| dot.is_default);
        chart.draw_series(default.map(|dot| Circle::new((dot.x, dot.y), 9, BLACK.stroke_width(2)))).map_err(failed)?;
        let at: Vec<(i32, i32)> = dots.iter().map(|dot| chart.backend_coord(&(dot.x, dot.y))).collect();
        let mut taken: Vec<Area> = at.iter().map(|(x, y)| Area(x - 4, y - 4, x + 4, y + 4)).collect();
        // The default's label is not to be crowded out by others.
        let mut labelled: Vec<(&Dot, (i32, i32))> = dots.iter().zip(at).collect();
        labelled.retain(|(dot, _)| dot.on_frontier || dot.is_default);
        labelled.sort_by_key(|(dot, _)| !dot.is_default);
        for (dot, at) in labelled {
            if let Some(place) = free_place(at, &dot.label, &taken) {
                taken.push(place);
                root.draw(&Text::new(dot.label.clone(), (place.0, place.1), ("sans-serif", 12))).map_err(failed)?;
            }
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Left, top, right, bottom, in pixels.
#[derive(Clone, Copy)]
struct Area(i32, i32, i32, i32);

impl Area {
    fn meets(self, other: Self) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }
}

/// Where the label of a dot meets nothing: beside it, above it or below it; nowhere where dots crowd. All points are in
/// the table.
fn free_place((x, y): (i32, i32), label: &str, taken: &[Area]) -> Option<Area> {
    let (wide, tall) = (label.len() as i32 * 5, 12);
    let places = [
        (9, -6),
        (-9 - wide, -6),
        (-wide / 2, -21),
        (-wide / 2, 10),
        (6, -20),
        (6, 9),
        (-6 - wide, -20),
        (-6 - wide, 9),
    ];
    let areas = places.map(|(right, down)| Area(x + right, y + down, x + right + wide, y + down + tall));
    let fits =
        |area: &Area| area.0 > 75 && area.2 < DOTS_SIZE.0 as i32 && !taken.iter().any(|other| area.meets(*other));
    areas.into_iter().find(fits)
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}
