//! Drawings: SVG in the page, in the colours of its theme, with the same in words for who cannot see them.

use crate::words::{Html, escaped, number};

/// The height of a chart's plot, and the room for its labels, in units of the drawing.
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 40.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;

/// Values over time that are stacked or drawn as lines: each has a name and a colour.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// What it is.
    pub(crate) name: &'static str,
    /// A class of the style sheet: its colour.
    pub(crate) class: &'static str,
    /// One value for each bucket; nothing where nothing was measured.
    pub(crate) values: Vec<Option<f64>>,
}

/// What is under a bucket, and what a reader is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Short, for the axis; most are left out.
    pub(crate) label: String,
    /// In words.
    pub(crate) title: String,
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(value)
}

/// The axis of a plot: up to four steps, each a round whole number, of which the last is at the top.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    step: f64,
    steps: u32,
}

impl Axis {
    /// One that has room for this value.
    fn up_to(value: f64) -> Self {
        let step = round_up(value / 4.0);
        Self { step, steps: (value / step).ceil().clamp(1.0, 4.0) as u32 }
    }

    /// The value at its top.
    fn most(self) -> f64 {
        self.step * f64::from(self.steps)
    }
}

fn draw(svg: &mut String, width: f64, axis: Axis) {
    for step in 0..=axis.steps {
        let y = TOP + HEIGHT * (1.0 - f64::from(step) / f64::from(axis.steps));
        let value = axis.step * f64::from(step);
        let label = match value {
            value if value < 10_000.0 => format!("{value:.0}"),
            value if (value / 1000.0).fract() == 0.0 => format!("{:.0}k", value / 1000.0),
            value => format!("{:.1}k", value / 1000.0),
        };
        svg.push_str(&format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 3.0
        ));
    }
}

fn labels(svg: &mut String, buckets: &[Bucket], width: f64) {
    let step = (width - LEFT) / buckets.len().max(1) as f64;
    let every = (buckets.len() as f64 * 64.0 / (width - LEFT)).ceil().max(1.0) as usize;
    for (i, bucket) in buckets.iter().enumerate().step_by(every) {
        let x = LEFT + step * i as f64;
        let y = TOP + HEIGHT + BOTTOM - 6.0;
        svg.push_str(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(&bucket.label)));
    }
}

fn open(name: &str, width: f64) -> String {
    let height = TOP + HEIGHT + BOTTOM;
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(name)
    )
}

/// Bars of several kinds on one another; where none of them was measured there is a gap, which is no zero.
pub(crate) fn stacked(name: &str, buckets: &[Bucket], series: &[Series], width: f64) -> Html {
    let value = |series: &Series, i: usize| series.values.get(i).copied().flatten().unwrap_or(0.0);
    let sum = |i: usize| series.iter().map(|one| value(one, i)).sum::<f64>();
    let axis = Axis::up_to((0..buckets.len()).map(sum).fold(0.0, f64::max));
    let most = axis.most();
    let mut svg = open(name, width);
    draw(&mut svg, width, axis);
    let step = (width - LEFT) / buckets.len().max(1) as f64;
    let bar = (step - if step > 6.0 { 2.0 } else { 0.5 }).max(0.5);
    for (i, bucket) in buckets.iter().enumerate() {
        let x = LEFT + step * i as f64;
        let mut y = TOP + HEIGHT;
        let told: Vec<String> = series
            .iter()
            .filter(|one| one.values.get(i).copied().flatten().is_some())
            .map(|one| format!("{} {}", number(value(one, i) as u64), one.name))
            .collect();
        let is_gap = told.is_empty();
        let told = if is_gap { "not measured".to_owned() } else { told.join(", ") };
        svg.push_str(&format!("<g><title>{}: {told}</title>", escaped(&bucket.title)));
        for one in series {
            let height = HEIGHT * value(one, i) / most;
            if height > 0.0 {
                let height = height.max(1.0);
                y -= height;
                let class = one.class;
                svg.push_str(&format!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{height:.1}\" rx=\"1\"/>"
                ));
            }
        }
        // All of the column answers to the pointer.
        let class = if is_gap { "hit gap" } else { "hit" };
        svg.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{step:.1}\" height=\"{HEIGHT}\"/></g>"
        ));
    }
    labels(&mut svg, buckets, width);
    svg.push_str("</svg>");
    Html(svg)
}

/// Lines, with gaps where nothing was measured.
pub(crate) fn lines(name: &str, buckets: &[Bucket], series: &[Series], width: f64) -> Html {
    let all = series.iter().flat_map(|one| one.values.iter().flatten());
    let axis = Axis::up_to(all.copied().fold(0.0, f64::max));
    let most = axis.most();
    let mut svg = open(name, width);
    draw(&mut svg, width, axis);
    let step = (width - LEFT) / buckets.len().max(1) as f64;
    for one in series {
        let mut path = String::new();
        let mut drawing = false;
        for (i, value) in one.values.iter().enumerate() {
            let Some(value) = value else {
                drawing = false;
                continue;
            };
            let (x, y) = (LEFT + step * (i as f64 + 0.5), TOP + HEIGHT * (1.0 - value / most));
            let alone = !drawing && one.values.get(i + 1).copied().flatten().is_none();
            if alone {
                // Wide enough to be seen.
                path.push_str(&format!("M{:.1} {y:.1}h4", x - 2.0));
            } else {
                path.push_str(&format!("{}{x:.1} {y:.1}", if drawing { "L" } else { "M" }));
            }
            drawing = true;
        }
        svg.push_str(&format!("<path class=\"{}\" d=\"{path}\"/>", one.class));
    }
    for (i, bucket) in buckets.iter().enumerate() {
        let told: Vec<String> = series
            .iter()
            .filter_map(|one| Some(format!("{} {:.0}", one.name, one.values.get(i).copied().flatten()?)))
            .collect();
        let told = if told.is_empty() { "nothing".to_owned() } else { told.join(", ") };
        let x = LEFT + step * i as f64;
        svg.push_str(&format!("<g><title>{}: {told}</title><rect class=\"hit\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{step:.1}\" height=\"{HEIGHT}\"/></g>",
            escaped(&bucket.title)
        ));
    }
    labels(&mut svg, buckets, width);
    svg.push_str("</svg>");
    Html(svg)
}

/// A small line under a number: how it went, and nothing exact.
pub(crate) fn spark(values: &[f64]) -> Html {
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.len() < 2 || most <= 0.0 {
        return Html("<svg class=\"spark\" viewBox=\"0 0 100 28\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"M0 27L100 27\"/></svg>".to_owned());
    }
    let step = 100.0 / (values.len() - 1) as f64;
    let mut path = String::new();
    for (i, value) in values.iter().enumerate() {
        let (x, y) = (step * i as f64, 27.0 - 25.0 * value / most);
        path.push_str(&format!("{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" }));
    }
    Html(format!(
        "<svg class=\"spark\" viewBox=\"0 0 100 28\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path class=\"area\" \
         d=\"{path}L100 28L0 28Z\"/><path d=\"{path}\"/></svg>"
    ))
}

/// Small bars of good and bad on one another, for a row of a table.
pub(crate) fn pulse(name: &str, good_and_bad: &[(u64, u64)]) -> Html {
    let most = good_and_bad.iter().map(|(good, bad)| good + bad).max().unwrap_or(0).max(1) as f64;
    let step = 96.0 / good_and_bad.len().max(1) as f64;
    let mut svg =
        format!("<svg class=\"pulse\" viewBox=\"0 0 96 20\" role=\"img\" aria-label=\"{}\">", escaped(name));
    for (i, (good, bad)) in good_and_bad.iter().enumerate() {
        let x = step * i as f64;
        let (good, bad) = (18.0 * *good as f64 / most, 18.0 * *bad as f64 / most);
        for (class, height, y) in [("ok", good, 20.0 - good), ("bad", bad, 20.0 - good - bad)] {
            if height > 0.0 {
                svg.push_str(&format!("<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                    (step - 1.0).max(1.0)
                ));
            }
        }
    }
    svg.push_str("<line class=\"axis\" x1=\"0\" x2=\"96\" y1=\"20\" y2=\"20\"/></svg>");
    Html(svg)
}

/// A bar of [`brush`].
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// In words.
    pub(crate) title: String,
    /// Where it leads.
    pub(crate) link: String,
    /// What is below, in green.
    pub(crate) good: u64,
    /// What is above, in red.
    pub(crate) bad: u64,
}

/// A low plot above a list, as wide as the list, under what it says in words. Its bars are for pointers: keys would have to pass a hundred
/// of them, and times can be typed.
pub(crate) fn brush(told: &str, bars: &[Bar]) -> Html {
    let most = bars.iter().map(|bar| bar.good + bar.bad).max().unwrap_or(0).max(1) as f64;
    let height = |n: u64| if n == 0 { 0.0 } else { (36.0 * n as f64 / most).max(1.0) };
    let mut svg = format!(
        "<p class=\"small muted\">{}</p><svg class=\"brush\" viewBox=\"0 0 {} 40\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        escaped(told),
        bars.len() * 10
    );
    for (i, bar) in bars.iter().enumerate() {
        let (good, bad) = (height(bar.good), height(bar.bad));
        svg.push_str(&format!(
            "<a href=\"{}\" tabindex=\"-1\"><title>{}</title><rect class=\"ok\" x=\"{x}\" y=\"{:.1}\" \
             width=\"8\" height=\"{good:.1}\"/><rect class=\"bad\" x=\"{x}\" y=\"{:.1}\" width=\"8\" height=\"{bad:.1}\"/>\
             <rect class=\"hit\" x=\"{}\" width=\"10\" height=\"40\"/></a>",
            escaped(&bar.link),
            escaped(&bar.title),
            40.0 - good,
            40.0 - good - bad,
            i * 10,
            x = i * 10 + 1,
        ));
    }
    svg.push_str("</svg>");
    Html(svg)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(n: usize) -> Bucket {
        Bucket { label: format!("{n}:00"), title: format!("at {n}:00") }
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        for (value, round) in
            [(0.0, 1.0), (0.4, 1.0), (1.2, 2.0), (3.0, 5.0), (7.0, 10.0), (100.0, 100.0), (101.0, 200.0)]
        {
            assert_eq!(round_up(value), round, "{value}");
        }
    }

    #[test]
    fn its_steps_are_whole_numbers_and_leave_room() {
        for (value, step, steps) in [
            (0.0, 1.0, 1),
            (1.0, 1.0, 1),
            (3.0, 1.0, 3),
            (4.0, 1.0, 4),
            (5.0, 2.0, 3),
            (12.0, 5.0, 3),
            (2001.0, 1000.0, 3),
        ] {
            assert_eq!(Axis::up_to(value), Axis { step, steps }, "{value}");
            assert!(Axis::up_to(value).most() >= value, "{value}");
        }
    }

    #[test]
    fn each_bar_says_what_it_is_in_words() {
        let series = [
            Series { name: "delivered", class: "ok", values: vec![Some(3.0), None] },
            Series { name: "dead", class: "bad", values: vec![Some(1.0), Some(0.0)] },
        ];
        let svg = stacked("Deliveries <24 h>", &[bucket(1), bucket(2)], &series, 300.0).0;
        assert!(svg.contains("<title>at 1:00: 3 delivered, 1 dead</title>"), "{svg}");
        assert!(svg.contains("<title>at 2:00: 0 dead</title>"));
        assert!(!svg.contains("class=\"hit gap\""));
        assert!(svg.contains("aria-label=\"Deliveries &lt;24 h&gt;\""));
        assert_eq!(svg.matches("<rect class=\"ok\"").count(), 1);
        assert_eq!(svg.matches("<rect class=\"bad\"").count(), 1);
    }

    #[test]
    fn a_bar_that_was_not_measured_is_a_gap_and_no_zero() {
        let series = [Series { name: "waiting", class: "ok", values: vec![Some(0.0), None] }];
        let svg = stacked("Waiting", &[bucket(1), bucket(2)], &series, 300.0).0;
        assert!(svg.contains("<title>at 1:00: 0 waiting</title>"), "{svg}");
        assert!(svg.contains("<title>at 2:00: not measured</title>"), "{svg}");
        assert_eq!(svg.matches("class=\"hit gap\"").count(), 1);
    }

    #[test]
    fn a_line_has_a_gap_where_nothing_was_measured() {
        let values = vec![Some(1.0), Some(2.0), None, Some(4.0), None];
        let svg = lines(
            "ms",
            &[bucket(0), bucket(1), bucket(2), bucket(3), bucket(4)],
            &[Series { name: "p50", class: "l50", values }],
            290.0,
        )
        .0;
        assert_eq!(
            svg.split("class=\"l50\"").nth(1).unwrap().split('"').nth(1).unwrap().matches('M').count(),
            2
        );
        assert!(svg.contains("at 2:00: nothing"));
    }

    proptest! {
        #[test]
        fn whatever_the_values_nothing_leaves_the_plot(values in prop::collection::vec(0u32..u32::MAX, 0..60)) {
            let buckets: Vec<Bucket> = (0..values.len()).map(bucket).collect();
            let series = |class| Series { name: "n", class, values: values.iter().map(|v| Some(f64::from(*v))).collect() };
            for svg in [stacked("s", &buckets, &[series("ok"), series("bad")], 700.0), lines("l", &buckets, &[series("l50")], 700.0)] {
                for text in ["NaN", "inf", "\"-"] {
                    prop_assert!(!svg.0.contains(text), "{text} in {}", svg.0);
                }
            }
        }
    }
}
