//! A few line charts as SVG, readable on light and dark ground.

use std::fmt::Write as _;

/// One chart.
pub struct Panel {
    pub title: String,
    pub unit: &'static str,
    pub lines: Vec<Line>,
    /// A moment worth a mark, seconds, and what it is.
    pub marks: Vec<(f64, &'static str)>,
    /// What is said below.
    pub says: Vec<String>,
}

/// Points over time, seconds.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 290.0;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:13px}.s{fill:#666}\
.a{stroke:#999;fill:none}.g{stroke:#ddd;fill:none}.m{stroke:#b35;stroke-dasharray:4 3}.l0{stroke:#0b62a4}.l1{stroke:#c60}\
.l2{stroke:#297a3c}.l{fill:none;stroke-width:1.8}.k0{fill:#0b62a4}.k1{fill:#c60}.k2{fill:#297a3c}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}.a{stroke:#777}.g{stroke:#3a3a3a}.m{stroke:#f7a}\
.l0{stroke:#6cb4ee}.l1{stroke:#fa5}.l2{stroke:#7d9}.k0{fill:#6cb4ee}.k1{fill:#fa5}.k2{fill:#7d9}}";

/// All panels, two in a row.
pub fn svg(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2);
    let (width, height) = (WIDTH * 2.0, HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{STYLE}</style>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % 2) as f64 * WIDTH, (index / 2) as f64 * HEIGHT);
        writeln!(out, "<g transform=\"translate({x} {y})\">{}</g>", draw(panel)).unwrap();
    }
    out + "</svg>\n"
}

fn draw(panel: &Panel) -> String {
    let (left, top, right, bottom) = (52.0, 44.0, WIDTH - 16.0, HEIGHT - 78.0);
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let end = points().map(|point| point.0).fold(1.0, f64::max);
    let most = nice(points().map(|point| point.1).fold(1.0, f64::max));
    let x = |seconds: f64| left + (right - left) * seconds / end;
    let y = |value: f64| bottom - (bottom - top) * value / most;
    let mut out = format!("<text class=\"t\" x=\"12\" y=\"20\">{}</text>", escape(&panel.title));
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let at = y(value);
        write!(out, "<path class=\"g\" d=\"M{left} {at:.1}H{right}\"/>").unwrap();
        write!(
            out,
            "<text class=\"s\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 6.0,
            at + 4.0
        )
        .unwrap();
    }
    write!(out, "<text class=\"s\" x=\"12\" y=\"{}\">{}</text>", top - 9.0, panel.unit).unwrap();
    write!(out, "<path class=\"a\" d=\"M{left} {top}V{bottom}H{right}\"/>").unwrap();
    write!(
        out,
        "<text class=\"s\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{end:.0} s</text>",
        bottom + 15.0
    )
    .unwrap();
    for (at, what) in &panel.marks {
        let at = x(*at);
        write!(out, "<path class=\"m\" d=\"M{at:.1} {top}V{bottom}\"/>").unwrap();
        write!(out, "<text class=\"s\" x=\"{:.1}\" y=\"{}\">{}</text>", at + 4.0, top + 10.0, escape(what))
            .unwrap();
    }
    for (index, line) in panel.lines.iter().enumerate() {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1} {:.1}", x(point.0), y(point.1))).collect();
        if !path.is_empty() {
            write!(out, "<path class=\"l l{index}\" d=\"M{}\"/>", path.join("L")).unwrap();
        }
        let key = left + 130.0 * index as f64;
        write!(
            out,
            "<rect class=\"k{index}\" x=\"{key}\" y=\"{}\" width=\"10\" height=\"3\"/>",
            bottom + 26.0
        )
        .unwrap();
        write!(
            out,
            "<text class=\"s\" x=\"{}\" y=\"{}\">{}</text>",
            key + 14.0,
            bottom + 31.0,
            escape(line.name)
        )
        .unwrap();
    }
    for (index, says) in panel.says.iter().enumerate() {
        write!(out, "<text x=\"12\" y=\"{}\">{}</text>", bottom + 49.0 + 16.0 * index as f64, escape(says))
            .unwrap();
    }
    out
}

/// The next of 1, 2, 4 or 8 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
