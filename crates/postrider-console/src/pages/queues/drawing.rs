//! The way of messages as a drawing: the roles, and between them the queues with what they hold.

use std::collections::BTreeMap;

use crate::words::{Html, counted, escaped, number};

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 540;
/// The height of a box.
const TALL: u32 = 52;

/// What the queues of one purpose hold together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Held {
    /// How many queues there should be.
    pub(super) queues: u64,
    /// Messages that nobody holds; nothing where that is not known.
    pub(super) ready: Option<u64>,
    /// The fewest consumers that one of them has; nothing where that is not known, or where nobody should consume.
    pub(super) consumers: Option<u64>,
    /// By how much more waits in them each minute; nothing where that is not known.
    pub(super) trend: Option<f64>,
    /// What is the matter with one of them, in a few words.
    pub(super) trouble: Option<String>,
}

impl Held {
    /// How many messages wait, with an arrow where that changes by one a minute or more.
    fn ready(&self) -> Option<String> {
        let arrow = match self.trend {
            Some(trend) if trend >= 1.0 => " ↑",
            Some(trend) if trend <= -1.0 => " ↓",
            _ => "",
        };
        self.ready.map(|ready| format!("{}{arrow}", number(ready)))
    }
}

/// What the boxes of the roles say.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    /// How many routers there are.
    pub(super) routers: Option<String>,
    /// How many workers there are.
    pub(super) workers: Option<String>,
    /// Whether a role is missing.
    pub(super) missing: Vec<&'static str>,
}

/// A box: a queue, or a role.
struct Place {
    /// The purpose of the queues, as the API calls it; or the role.
    what: &'static str,
    name: &'static str,
    /// What it is for, where there is nothing to say of how it is.
    purpose: &'static str,
    is_role: bool,
    x: u32,
    y: u32,
    width: u32,
}

const fn queue(what: &'static str, name: &'static str, purpose: &'static str, at: (u32, u32, u32)) -> Place {
    Place { what, name, purpose, is_role: false, x: at.0, y: at.1, width: at.2 }
}

const fn role(what: &'static str, name: &'static str, purpose: &'static str, at: (u32, u32, u32)) -> Place {
    Place { what, name, purpose, is_role: true, x: at.0, y: at.1, width: at.2 }
}

const PLACES: [Place; 17] = [
    role("upstream", "Upstream", "AMQP, HTTP", (10, 96, 104)),
    queue("events", "Events", "what happened", (150, 96, 146)),
    role("router", "Router", "who wants it", (332, 96, 104)),
    queue("fresh", "Fresh", "first attempts", (486, 24, 160)),
    queue("retry", "Retry", "later attempts", (486, 96, 160)),
    queue("replay", "Replay", "what is sent again", (486, 168, 160)),
    role("worker", "Workers", "sign and send", (706, 96, 104)),
    role("receivers", "Receivers", "HTTPS", (880, 96, 110)),
    queue("seen", "Seen", "stream of accepted ids", (150, 196, 146)),
    queue("config", "Config", "stream of settings", (150, 280, 146)),
    queue("park", "Parking", "spends no attempt", (486, 256, 150)),
    queue("delay", "Delay", "until the next try", (656, 256, 136)),
    queue("invalid", "Invalid", "no event", (332, 392, 124)),
    queue("journal", "Journal", "what became of it", (486, 392, 160)),
    queue("dead", "Dead", "given up", (680, 392, 136)),
    queue("poison", "Poison", "crashed its readers", (850, 392, 140)),
    role("control", "Control", "writes the books from what is above, and the configuration", (332, 480, 658)),
];

/// The ways: along the axes, from one box to another. The last is taken rarely, by what the broker itself moves.
const WAYS: [&str; 20] = [
    "M114 122 H148",
    "M296 122 H330",
    "M436 112 H460 V50 H484",
    "M346 148 V222 H298",
    "M296 306 H364 V150",
    "M388 148 V390",
    "M412 148 V360 H540 V390",
    "M646 50 H676 V110 H704",
    "M646 122 H704",
    "M646 194 H676 V134 H704",
    "M810 122 H878",
    "M746 148 V254",
    "M724 148 V232 H560 V254",
    "M724 308 V330 H466 V134 H484",
    "M486 282 H466 V134 H484",
    "M802 148 V390",
    "M802 148 V352 H600 V390",
    "M394 444 V478",
    "M566 444 V478",
    "M748 444 V478",
];
const RARE_WAYS: [&str; 1] = ["M802 148 V352 H920 V390"];
const LATE_WAYS: [&str; 2] = ["M920 444 V478", "M332 506 H223 V334"];

/// The drawing. Queues of which nothing is known have no numbers.
pub(super) fn drawing(held: &BTreeMap<String, Held>, roles: &Roles) -> Html {
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\"><defs><marker id=\"tip\" \
         viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" \
         d=\"M0 0 L8 4 L0 8 z\"/></marker></defs>",
        escaped(&in_words(held))
    );
    for (ways, class) in [(&WAYS[..], "way"), (&RARE_WAYS[..], "way rare"), (&LATE_WAYS[..], "way")] {
        for way in ways {
            svg.push_str(&format!("<path class=\"{class}\" d=\"{way}\" marker-end=\"url(#tip)\"/>"));
        }
    }
    for place in &PLACES {
        if place.is_role {
            role_box(&mut svg, place, roles);
        } else {
            queue_box(&mut svg, place, held.get(place.what));
        }
    }
    svg.push_str("</svg>");
    Html(svg)
}

fn role_box(svg: &mut String, place: &Place, roles: &Roles) {
    let told = match place.what {
        "router" => roles.routers.as_deref(),
        "worker" => roles.workers.as_deref(),
        _ => None,
    };
    let class = if roles.missing.contains(&place.what) { "role bad" } else { "role" };
    put(svg, place, class, None, told.unwrap_or(place.purpose));
}

fn queue_box(svg: &mut String, place: &Place, held: Option<&Held>) {
    let class = if held.is_some_and(|held| held.trouble.is_some()) { "queue bad" } else { "queue" };
    let ready = held.and_then(Held::ready);
    put(svg, place, class, ready, &held.map_or_else(|| place.purpose.to_owned(), |held| below(place, held)));
}

/// The second line of a box.
fn below(place: &Place, held: &Held) -> String {
    if let Some(trouble) = &held.trouble {
        return trouble.clone();
    }
    match (held.queues, held.consumers) {
        (0 | 1, Some(consumers)) => counted(consumers, "consumer", "consumers"),
        (queues, Some(consumers)) => format!("{queues} queues, {consumers} each"),
        (0 | 1, None) => place.purpose.to_owned(),
        (queues, None) => format!("{queues} queues"),
    }
}

fn put(svg: &mut String, place: &Place, class: &str, number: Option<String>, below: &str) {
    let Place { name, purpose, x, y, width, .. } = place;
    svg.push_str(&format!(
        "<g class=\"{class}\"><title>{name}: {}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{TALL}\" rx=\"6\"/>\
         <text class=\"name\" x=\"{}\" y=\"{}\">{name}</text>",
        escaped(purpose),
        x + 10,
        y + 21
    ));
    if let Some(number) = number {
        svg.push_str(&format!(
            "<text class=\"ready\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{number}</text>",
            x + width - 10,
            y + 21
        ));
    }
    svg.push_str(&format!("<text x=\"{}\" y=\"{}\">{}</text></g>", x + 10, y + 40, escaped(below)));
}

/// The same for who does not see it.
fn in_words(held: &BTreeMap<String, Held>) -> String {
    let way = "Events go from upstream through the events queue to the router, from there by lanes to the workers, and to the \
               receivers; what fails waits in the delay levels and comes back to the retry lane.";
    let told = PLACES.iter().filter(|place| !place.is_role).filter_map(|place| {
        let held = held.get(place.what)?;
        let ready = held.ready().map(|ready| {
            let ready = ready.replace(" ↑", " and growing").replace(" ↓", " and shrinking");
            format!("{} {ready}", place.name)
        });
        match &held.trouble {
            Some(trouble) => Some(format!("{}: {trouble}", ready.unwrap_or_else(|| place.name.to_owned()))),
            None => ready,
        }
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { way.to_owned() } else { format!("{way} Ready messages: {}.", told.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(role: &str, held: Held) -> String {
        drawing(&BTreeMap::from([(role.to_owned(), held)]), &Roles::default()).0
    }

    /// Where a way begins and where it ends.
    fn ends(way: &str) -> [(u32, u32); 2] {
        let mut at = (0, 0);
        let mut begin = None;
        let mut steps = way.split(' ');
        while let Some(step) = steps.next() {
            let (letter, n) = step.split_at(1);
            let n = n.parse().unwrap();
            match letter {
                "M" => at = (n, steps.next().unwrap().parse().unwrap()),
                "H" => at.0 = n,
                "V" => at.1 = n,
                other => panic!("{other}"),
            }
            begin.get_or_insert(at);
        }
        [begin.unwrap(), at]
    }

    #[test]
    fn boxes_lie_apart_and_within_the_drawing() {
        for (i, a) in PLACES.iter().enumerate() {
            assert!(a.x + a.width <= WIDTH && a.y + TALL <= HEIGHT, "{}", a.name);
            for b in &PLACES[i + 1..] {
                let apart =
                    a.x + a.width < b.x || b.x + b.width < a.x || a.y + TALL < b.y || b.y + TALL < a.y;
                assert!(apart, "{} and {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn every_way_goes_from_a_box_to_another() {
        let touched = |(x, y): (u32, u32)| {
            PLACES.iter().position(|place| {
                let across = (place.x.saturating_sub(2)..=place.x + place.width + 2).contains(&x);
                across && (place.y - 2..=place.y + TALL + 2).contains(&y)
            })
        };
        let mut reached = [false; PLACES.len()];
        for way in WAYS.iter().chain(&RARE_WAYS).chain(&LATE_WAYS) {
            let [begin, end] =
                ends(way).map(|end| touched(end).unwrap_or_else(|| panic!("{way} at {end:?}")));
            assert_ne!(begin, end, "{way}");
            reached[begin] = true;
            reached[end] = true;
        }
        assert_eq!(reached, [true; PLACES.len()]);
    }

    #[test]
    fn a_box_says_how_many_messages_are_in_it() {
        let held = Held { queues: 2, ready: Some(1234), consumers: Some(3), trend: Some(0.9), trouble: None };
        let svg = drawn("fresh", held.clone());
        assert!(svg.contains(">1,234</text>") && svg.contains(">2 queues, 3 each</text>"), "{svg}");
        assert!(svg.contains("Ready messages: Fresh 1,234."), "{svg}");
        assert!(!svg.contains("class=\"queue bad\""), "{svg}");
        let svg = drawn("fresh", Held { trend: Some(40.0), ..held.clone() });
        assert!(svg.contains(">1,234 ↑</text>") && svg.contains("Fresh 1,234 and growing."), "{svg}");
        let svg = drawn("fresh", Held { trend: Some(-1.0), ..held });
        assert!(svg.contains(">1,234 ↓</text>") && svg.contains("Fresh 1,234 and shrinking."), "{svg}");
    }

    #[test]
    fn trouble_is_marked_and_said() {
        let trouble = Some("No <consumer>".into());
        let held = Held { queues: 1, ready: Some(7), consumers: Some(0), trend: None, trouble };
        let svg = drawn("journal", held);
        assert_eq!(svg.matches("class=\"queue bad\"").count(), 1);
        assert!(svg.contains(">No &lt;consumer&gt;</text>"), "{svg}");
        let roles = Roles { missing: vec!["worker"], workers: Some("none".into()), routers: None };
        let svg = drawing(&BTreeMap::new(), &roles).0;
        assert_eq!(svg.matches("class=\"role bad\"").count(), 1);
    }

    #[test]
    fn without_a_broker_there_are_no_numbers() {
        let svg = drawing(&BTreeMap::new(), &Roles::default()).0;
        assert!(!svg.contains("class=\"ready\"") && !svg.contains("Ready messages"), "{svg}");
        assert!(svg.contains(">first attempts</text>"), "{svg}");
    }
}
