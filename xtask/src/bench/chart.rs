//! The results as a chart: a panel for each measure, a bar for each path.

use std::{collections::BTreeMap, io, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::{
        Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, PathElement, RGBColor,
        Rectangle, SVGBackend, Text, TextStyle, WHITE,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    measure::Measure,
    path::DataPath,
    report::{Figure, Figures, Report},
};

/// Sizes in pixels: a panel, its title and a bar with the space around it.
const PANEL: (u32, u32) = (520, 44);
const BAR: u32 = 22;
/// Its title's baseline, and how far each line of small print is below the one before.
const TITLE: i32 = 12;
const LINE: u32 = 22;
/// Where bars begin, and how long the longest is.
const START: i32 = 150;
const LONGEST: f64 = 260.0;
const COLUMNS: usize = 2;
/// What a bar's line is.
pub(super) const QUARTILES: &str = "lines from the first to the third quartile";
const TEXT: RGBColor = RGBColor(40, 40, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What is drawn.
pub(super) struct Chart<'a> {
    pub(super) title: String,
    /// Where that was measured, and what has to be known of it.
    pub(super) small_print: Vec<String>,
    /// The panels, under their titles.
    pub(super) panels: Vec<(String, &'a Figures)>,
}

impl<'a> Chart<'a> {
    /// The measures of a benchmark.
    pub(super) fn of(report: &'a Report) -> Self {
        let host = &report.host;
        let lines = format!("medians of {} rounds, {QUARTILES}", host.rounds);
        let small_print = [host.caption(), format!("{lines}; {}", host.generators())];
        Self {
            title: "Container to container, and host to host: longer is better".to_owned(),
            small_print: small_print.into_iter().chain(report.details.notes.clone()).collect(),
            panels: panels(&report.measures),
        }
    }

    /// Pixels above the panels.
    fn header(&self) -> u32 {
        LINE * (u32::try_from(self.small_print.len()).unwrap_or(0) + 2)
    }

    /// Draws it into an SVG file.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn draw(&self, file: &Path) -> Result<()> {
        let bars = self.panels.iter().map(|(_, figures)| figures.paths.len()).max().unwrap_or(0);
        let rows = self.panels.len().div_ceil(COLUMNS);
        let height = PANEL.1 + BAR * u32::try_from(bars)?;
        let height = self.header() + height * u32::try_from(rows)?;
        let size = (PANEL.0 * u32::try_from(COLUMNS)?, height);
        let root = SVGBackend::new(file, size).into_drawing_area();
        self.draw_on(&root, rows)
            .map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
    }

    fn draw_on(&self, root: &Area<'_>, rows: usize) -> Drawn {
        root.fill(&WHITE)?;
        let (header, body) = root.split_vertically(self.header());
        header.draw(&Text::new(self.title.clone(), (12, TITLE), style(21.0)))?;
        for (line, text) in (1..).zip(&self.small_print) {
            let below = TITLE + line * LINE.cast_signed();
            header.draw(&Text::new(text.clone(), (12, below), style(14.0)))?;
        }
        let areas = body.split_evenly((rows, COLUMNS));
        for (area, (title, figures)) in areas.iter().zip(&self.panels) {
            panel(area, title, figures)?;
        }
        root.present()
    }
}

/// A panel for each measure.
pub(super) fn panels(measures: &BTreeMap<Measure, Figures>) -> Vec<(String, &Figures)> {
    let title = |measure: Measure, unit: &str| format!("{} [{unit}]", measure.title());
    measures.iter().map(|(measure, figures)| (title(*measure, &figures.unit), figures)).collect()
}

type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

fn panel(area: &Area<'_>, title: &str, figures: &Figures) -> Drawn {
    area.draw(&Text::new(title.to_owned(), (12, 14), style(17.0)))?;
    let longest = figures.paths.values().map(|figure| figure.p75).fold(0.0, f64::max);
    for (line, (path, figure)) in (0..).zip(&figures.paths) {
        let top = 36 + line * i32::try_from(BAR).unwrap_or(0);
        bar(area, top, *path, figure, LONGEST / longest.max(f64::MIN_POSITIVE))?;
    }
    Ok(())
}

/// One bar with its path on the left and its figure on the right; `scale` is pixels for each unit.
fn bar(area: &Area<'_>, top: i32, path: DataPath, figure: &Figure, scale: f64) -> Drawn {
    #[allow(clippy::cast_possible_truncation, reason = "no bar is longer than LONGEST")]
    let at = |value: f64| START + (value * scale).round() as i32;
    let middle = top + 8;
    let right = style(14.0).pos(Pos::new(HPos::Right, VPos::Center));
    let left = style(14.0).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(path.to_string(), (START - 8, middle), right))?;
    let corners = [(START, top), (at(figure.median), top + 16)];
    area.draw(&Rectangle::new(corners, colour(path).filled()))?;
    let quartiles = vec![(at(figure.p25), middle), (at(figure.p75), middle)];
    area.draw(&PathElement::new(quartiles, TEXT.stroke_width(1)))?;
    let end = at(figure.p75.max(figure.median)) + 6;
    area.draw(&Text::new(number(figure.median), (end, middle), left))
}

/// Ours, the kernel's tunnels, and what has none.
fn colour(path: DataPath) -> RGBColor {
    match path {
        _ if path.is_accelerated() => RGBColor(38, 132, 92),
        DataPath::Host | DataPath::Bridge => RGBColor(170, 176, 184),
        DataPath::CiliumModel => RGBColor(217, 154, 38),
        _ => RGBColor(94, 118, 163),
    }
}

fn style(size: f64) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

/// With commas between thousands; two digits behind the point of small ones.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bench::{machine::HostInfo, report::Details};

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([number(1234567.0), number(123.4), number(9.876)], ["1,234,567", "123", "9.88"]);
    }

    #[test]
    fn every_path_has_a_bar_as_long_as_its_median() {
        let figure = |median| Figure { median, p25: median, p75: median, ..Figure::default() };
        let paths = BTreeMap::from([
            (DataPath::Bridge, figure(10.0)),
            (DataPath::OvsEbpfVxlan, figure(20.0)),
        ]);
        let figures = Figures { unit: "Gbit/s".into(), paths };
        let measures = BTreeMap::from([(Measure::Tcp1, figures)]);
        let details = Details { notes: vec!["a note".to_owned()], ..Details::default() };
        let report = Report { host: HostInfo::ask(3), measures, details };
        let file = tempfile::NamedTempFile::new().unwrap();
        Chart::of(&report).draw(file.path()).unwrap();
        let drawn = fs::read_to_string(file.path()).unwrap();
        assert!(drawn.contains("width=\"260\"") && drawn.contains("width=\"130\""), "{drawn}");
        assert!(drawn.contains("ovs-ebpf-vxlan") && drawn.contains("20.00"), "{drawn}");
        assert!(drawn.contains("a note"), "{drawn}");
    }
}
