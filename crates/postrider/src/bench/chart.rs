//! The results as an SVG that can be read on light and dark ground.

use super::report::{PROCESSES, Report};
use super::run::Run;
use super::targets::{Bound, Verdict};

const WIDTH: f64 = 920.0;
/// Where bars begin.
const LEFT: f64 = 180.0;
/// Where the longest bar ends; numbers follow.
const RIGHT: f64 = 700.0;
const ROW: f64 = 24.0;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:13px}.s{fill:#666}\
.b{fill:#999}.p0{fill:#8a8a8a}.p1{fill:#c60}.p2{fill:#297a3c}.p3{fill:#0b62a4}.p4{fill:#7a3b9b}.p5{fill:#bbb}\
.y{fill:#297a3c}.n{fill:#b35}\
@media (prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}.b{fill:#777}.p1{fill:#fa5}.p2{fill:#7d9}.p3{fill:#6cb4ee}\
.p4{fill:#c9a0e0}.p5{fill:#666}.y{fill:#7d9}.n{fill:#f7a}}";

/// Lines under each other.
struct Canvas {
    out: String,
    y: f64,
}

/// All of it.
pub(super) fn svg(report: &Report) -> String {
    let mut canvas = Canvas { out: String::new(), y: 0.0 };
    let medians = || report.results.0.iter().map(|(run, _)| run);
    canvas.title("Deliveries a second, and how many times the baseline that is");
    let most = medians().map(|run| run.per_second).fold(1.0, f64::max);
    for run in medians() {
        let class = if run.cpu_seconds_per_1000.contains_key("worker") { "p3" } else { "b" };
        let bar = [(class, run.per_second / most)];
        let ratio =
            report.results.ratio(run.workload).map_or(String::new(), |ratio| format!(", {ratio:.2} times"));
        canvas.bar(run.workload, &bar, &format!("{:.0}{ratio}", run.per_second));
    }
    canvas.title("Processor seconds for each 1,000 deliveries, by process");
    canvas.legend();
    let most = medians().map(Run::cpu_sum).fold(f64::MIN_POSITIVE, f64::max);
    for run in medians() {
        let parts: Vec<(&str, f64)> = PROCESSES
            .iter()
            .zip(["p0", "p1", "p2", "p3", "p4", "p5"])
            .filter_map(|(name, class)| Some((class, run.cpu_seconds_per_1000.get(name)? / most)))
            .collect();
        let allows = run.cpu_allows(report.machine.cores);
        let allows = allows.map_or(String::new(), |allows| format!(", allows {allows:.0}/s"));
        canvas.bar(run.workload, &parts, &format!("{:.3}{allows}", run.cpu_sum()));
    }
    if let Some(latency) = report.results.of("steady-500").and_then(|run| run.latency_ms) {
        canvas.title("From the publisher to the receiver at a steady rate, milliseconds");
        for (name, value) in [("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99)] {
            canvas.bar(name, &[("p3", value / latency.p99.max(0.001))], &format!("{value:.1}"));
        }
    }
    canvas.title("Targets");
    for verdict in report.results.verdicts() {
        canvas.verdict(&verdict);
    }
    canvas.y += 10.0;
    for line in report.conditions().lines() {
        canvas.text("s", 12.0, line);
        canvas.y += 16.0;
    }
    let height = canvas.y + 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<style>{STYLE}</style>\n{}</svg>\n",
        canvas.out
    )
}

impl Canvas {
    fn text(&mut self, class: &str, x: f64, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.out.push_str(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>\n",
            self.y + 12.0
        ));
    }

    fn title(&mut self, text: &str) {
        self.y += 14.0;
        self.text("t", 12.0, text);
        self.y += 22.0;
    }

    fn legend(&mut self) {
        for (index, name) in PROCESSES.iter().enumerate() {
            let x = LEFT + 90.0 * index as f64;
            self.rect(&format!("p{index}"), x, 10.0);
            self.text("s", x + 15.0, name);
        }
        self.y += ROW;
    }

    fn rect(&mut self, class: &str, x: f64, width: f64) {
        let y = self.y;
        self.out.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\"/>\n",
            y + 1.5
        ));
    }

    /// A row: a name, parts of the longest bar side by side, and what they say.
    fn bar(&mut self, name: &str, parts: &[(&str, f64)], says: &str) {
        self.text("", 12.0, name);
        let mut x = LEFT;
        for (class, part) in parts {
            let width = (RIGHT - LEFT) * part;
            self.rect(class, x, width);
            x += width;
        }
        self.text("s", x + 8.0, says);
        self.y += ROW;
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let sign = match verdict.bound {
            Bound::AtLeast => "at least",
            Bound::AtMost => "at most",
        };
        let (class, word) = match verdict.met {
            Some(true) => ("y", "✓ met"),
            Some(false) => ("n", "✕ missed"),
            None => ("s", "– not measured"),
        };
        self.text("", 12.0, verdict.name);
        self.text("", LEFT, &verdict.value.map_or("-".to_owned(), |value| format!("{value:.2}")));
        self.text("s", LEFT + 90.0, &format!("{sign} {} {}", verdict.target, verdict.unit));
        self.text(class, LEFT + 340.0, word);
        self.y += 18.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn a_chart_shows_what_the_tables_say() {
        let svg = svg(&report());
        insta::assert_snapshot!(svg.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn text_is_escaped() {
        let mut canvas = Canvas { out: String::new(), y: 0.0 };
        canvas.text("s", 0.0, "a < b & c");
        assert!(canvas.out.contains("a &lt; b &amp; c"));
    }
}
