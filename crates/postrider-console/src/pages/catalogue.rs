//! The catalogue: which event types there are, what they mean and what triggers them.

mod import;
mod tree;
mod triggers;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::Value;

use self::tree::{Leaf, leaves};
use super::deliveries::Named;
use crate::Console;
use crate::api::{Listed, Refused, segment};
use crate::fields::Fields;
use crate::page::{Answer, Part, Shell, Visit, page};
use crate::words::{Html, indented, number, when_if};

/// The pages of the catalogue.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/catalogue", get(list))
        .route("/catalogue/{name}", get(show))
        .route("/catalogue/types/{name}", get(show))
        .merge(import::routes())
        .merge(triggers::routes())
}

/// How many event types a page of the API has.
const PAGE: &str = "200";
/// The most event types that are shown on one page: as many as a catalogue has.
const MOST_TYPES: usize = 2000;
/// The most webhooks that are named on the page of an event type.
const MOST_WEBHOOKS: &str = "50";

/// An event type, as the API lists it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TypeInShort {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) product: String,
    pub(crate) category: String,
    pub(crate) group: Option<String>,
    pub(crate) description: String,
    pub(crate) cause: String,
    pub(crate) sensitive: bool,
    pub(crate) aliases: Vec<String>,
    pub(crate) code: Option<String>,
    pub(crate) conditions: Vec<String>,
    pub(crate) conditions_open: bool,
    pub(crate) lead_days: Option<u32>,
    pub(crate) split_from: Option<String>,
    pub(crate) events_24h: u64,
}

impl TypeInShort {
    /// How many events of it the last day had.
    pub(crate) fn volume(&self) -> String {
        number(self.events_24h)
    }

    /// The page of it.
    pub(crate) fn link(&self) -> String {
        page_of(&self.name)
    }

    /// What makes it happen, in words.
    fn caused(&self) -> String {
        match (self.cause.as_str(), self.lead_days) {
            ("scheduled", Some(1)) => "Scheduled: 1 day before a date".to_owned(),
            ("scheduled", Some(days)) => format!("Scheduled: {days} days before a date"),
            ("scheduled", None) => "Scheduled: before a date".to_owned(),
            ("own", _) => "Postrider itself".to_owned(),
            _ => "An action".to_owned(),
        }
    }
}

/// The page of an event type. One that is called as another page of the catalogue has a longer address.
pub(crate) fn page_of(name: &str) -> String {
    let below = if name == "import" { "types/" } else { "" };
    format!("/catalogue/{below}{}", segment(name))
}

/// Every event type of the tenant that is asked for, page by page, and whether there are more than are read.
///
/// # Errors
/// [`Refused`] with the API's problem.
pub(crate) async fn every_type(
    visit: &Visit,
    query: &[(&str, &str)],
) -> Result<(Vec<TypeInShort>, bool), Refused> {
    let (mut types, mut cursor): (Vec<TypeInShort>, _) = (Vec::new(), String::new());
    loop {
        let mut pairs = query.to_vec();
        pairs.extend([("limit", PAGE), ("cursor", cursor.as_str())]);
        let listed: Listed<TypeInShort> = visit.api.get("/v1/event-types", &pairs).await?;
        types.extend(listed.items);
        match listed.next {
            None => return Ok((types, false)),
            Some(_) if types.len() >= MOST_TYPES => return Ok((types, true)),
            Some(next) => cursor = next,
        }
    }
}

/// A catalogue, as the API lists it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InShort {
    product: String,
    name: String,
    note: String,
    event_types: u64,
    triggers: u64,
    profile: Option<String>,
    built_in: bool,
    revision: Option<u64>,
    updated_at: Option<String>,
}

impl InShort {
    fn path(&self) -> String {
        segment(&self.product)
    }
}

/// A catalogue in the list, with when it was changed.
struct Row {
    catalogue: InShort,
    updated: Html,
    link: String,
    chosen: bool,
}

/// What a catalogue calls its categories and groups.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "category")]
    categories: Vec<Label>,
    #[serde(rename = "group")]
    groups: Vec<Label>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Label {
    id: String,
    label: String,
    description: String,
}

/// Event types of one category and group.
struct Group {
    category: String,
    category_description: String,
    /// Whether the category begins with it.
    first: bool,
    group: String,
    group_description: String,
    types: Vec<TypeInShort>,
}

#[derive(Template)]
#[template(path = "catalogue.html")]
struct CataloguePage {
    shell: Shell,
    catalogues: Vec<Row>,
    groups: Vec<Group>,
    fields: Fields,
    found: usize,
    cut: bool,
    /// The chosen catalogue's note.
    note: String,
    chosen: String,
}

async fn list(visit: Visit) -> Response {
    let made = listed(&visit).await;
    visit.or_refused(Part::Catalogue, made)
}

async fn listed(visit: &Visit) -> Answer {
    let fields = visit.query();
    let catalogues: Listed<InShort> = visit.api.get("/v1/catalogues", &[]).await?;
    let chosen = chosen_product(&fields, &catalogues.items);
    let query = [("product", chosen.as_str()), ("search", fields.get("search"))];
    let (types, cut) = every_type(visit, &query).await?;
    let labels = if chosen.is_empty() {
        Labels::default()
    } else {
        visit
            .api
            .get::<Labels>(&format!("/v1/catalogues/{}", segment(&chosen)), &[])
            .await
            .unwrap_or_default()
    };
    let mut shell = visit.shell(Part::Catalogue, "Catalogue");
    shell.command = "postrider event-type list".to_owned();
    shell.live = false;
    let note = catalogues.items.iter().find(|it| it.product == chosen).map(|it| it.note.clone());
    page(&CataloguePage {
        shell,
        found: types.len(),
        groups: grouped(types, &labels),
        catalogues: catalogues
            .items
            .into_iter()
            .map(|catalogue| Row {
                updated: when_if(catalogue.updated_at.as_deref(), visit.now),
                link: format!("/catalogue{}", fields.with(&[("product", &catalogue.product)])),
                chosen: catalogue.product == chosen,
                catalogue,
            })
            .collect(),
        fields,
        cut,
        note: note.unwrap_or_default(),
        chosen,
    })
}

/// Which catalogue is shown: the one of the address; when nothing is searched for, the first.
fn chosen_product(fields: &Fields, catalogues: &[InShort]) -> String {
    if fields.has("product") || fields.has("search") {
        return fields.get("product").to_owned();
    }
    catalogues.first().map(|first| first.product.clone()).unwrap_or_default()
}

/// Types that follow each other and are of one category and group, together, with what these are called.
fn grouped(types: Vec<TypeInShort>, labels: &Labels) -> Vec<Group> {
    let told = |labels: &[Label], id: &str| {
        let known = labels.iter().find(|label| label.id == id);
        known.map_or_else(|| (id.to_owned(), String::new()), |it| (it.label.clone(), it.description.clone()))
    };
    let mut order: Vec<(String, String, Option<String>)> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for one in types {
        let key = (one.product.clone(), one.category.clone(), one.group.clone());
        if let Some(place) = order.iter().position(|known| *known == key) {
            groups[place].types.push(one);
            continue;
        }
        let (category, category_description) = told(&labels.categories, &one.category);
        let (group, group_description) =
            one.group.as_deref().map(|id| told(&labels.groups, id)).unwrap_or_default();
        order.push(key);
        groups.push(Group {
            category,
            category_description,
            first: false,
            group,
            group_description,
            types: vec![one],
        });
    }
    // A category is told once, though types of another may stand between its groups.
    let mut sorted: Vec<Group> = Vec::with_capacity(groups.len());
    while !groups.is_empty() {
        let mut lead = groups.remove(0);
        let (category, product) = (lead.category.clone(), lead.types[0].product.clone());
        lead.first = true;
        sorted.push(lead);
        let same = |it: &Group| it.category == category && it.types[0].product == product;
        let (more, others): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(same);
        sorted.extend(more);
        groups = others;
    }
    sorted
}

/// An event type with everything that is known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InFull {
    #[serde(flatten)]
    event_type: TypeInShort,
    category_label: String,
    category_description: String,
    group_label: Option<String>,
    group_description: Option<String>,
    data_schema: Option<Value>,
    example: Option<String>,
    triggers: Vec<TriggeredBy>,
    webhooks: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TriggeredBy {
    action: String,
    description: String,
    when: Option<String>,
    emit: Vec<Emitted>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Emitted {
    when: Option<String>,
    for_each: Vec<String>,
}

#[derive(Template)]
#[template(path = "event_type.html")]
struct TypePage {
    shell: Shell,
    full: InFull,
    profile: Option<String>,
    example: Option<String>,
    leaves: Vec<Leaf>,
    schema: Option<String>,
    webhooks: Vec<Named>,
    taken: String,
    create: String,
    send: String,
    events: String,
    product_link: String,
}

async fn show(visit: Visit, Path(name): Path<String>) -> Response {
    let made = shown(&visit, &name).await;
    visit.or_refused(Part::Catalogue, made)
}

async fn shown(visit: &Visit, name: &str) -> Answer {
    let full: InFull = visit.api.get(&format!("/v1/event-types/{}", segment(name)), &[]).await?;
    let name = full.event_type.name.clone();
    let catalogues = visit.api.get::<Listed<InShort>>("/v1/catalogues", &[]).await;
    let profile = catalogues.ok().and_then(|listed| {
        listed.items.into_iter().find(|it| it.product == full.event_type.product).and_then(|it| it.profile)
    });
    let takers = visit
        .api
        .get::<Listed<Named>>("/v1/webhooks", &[("event_type", &name), ("limit", MOST_WEBHOOKS)])
        .await;
    let mut shell = visit.shell(Part::Catalogue, name.clone());
    shell.command = format!("postrider event-type show '{}'", name.replace('\'', ""));
    shell.live = false;
    page(&TypePage {
        shell,
        profile,
        example: full.example.as_deref().map(indented),
        leaves: full.data_schema.as_ref().map(leaves).unwrap_or_default(),
        schema: full.data_schema.as_ref().and_then(|schema| serde_json::to_string_pretty(schema).ok()),
        webhooks: takers.map(|listed| listed.items).unwrap_or_default(),
        taken: number(full.webhooks),
        create: format!("/webhooks/new?event_type={}", segment(&name)),
        send: format!("/send?type={}", segment(&name)),
        events: format!("/events?event_type={}", segment(&name)),
        product_link: format!("/catalogue?product={}", segment(&full.event_type.product)),
        full,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;
    use axum::Json;
    use serde_json::json;

    fn of(name: &str, category: &str, group: Option<&str>) -> TypeInShort {
        TypeInShort {
            name: name.into(),
            category: category.into(),
            group: group.map(str::to_owned),
            ..TypeInShort::default()
        }
    }

    #[test]
    fn types_stand_under_their_category_and_group() {
        let labels: Labels = serde_json::from_value(serde_json::json!({
            "category": [{ "id": "o", "label": "Orders", "description": "All of them" }, { "id": "c", "label": "Carts" }],
            "group": [{ "id": "new", "label": "New orders" }]
        }))
        .unwrap();
        let types = vec![
            of("A", "o", Some("new")),
            of("B", "c", None),
            of("C", "o", None),
            of("D", "o", Some("new")),
            of("E", "x", None),
        ];
        let told: Vec<(String, bool, String, Vec<String>)> = grouped(types, &labels)
            .into_iter()
            .map(|it| (it.category, it.first, it.group, it.types.into_iter().map(|one| one.name).collect()))
            .collect();
        let is = |category: &str, first, group: &str, names: &[&str]| {
            (
                category.to_owned(),
                first,
                group.to_owned(),
                names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            told,
            [
                is("Orders", true, "New orders", &["A", "D"]),
                is("Orders", false, "", &["C"]),
                is("Carts", true, "", &["B"]),
                is("x", true, "", &["E"])
            ]
        );
    }

    #[test]
    fn the_first_catalogue_is_shown_unless_one_is_chosen_or_all_are_searched() {
        let catalogues = [InShort { product: "shop".into(), ..InShort::default() }];
        let chosen = |query: &[u8]| chosen_product(&Fields::parse(query), &catalogues);
        assert_eq!(chosen(b""), "shop");
        assert_eq!(chosen(b"search=order"), "");
        assert_eq!(chosen(b"search=order&product=other"), "other");
    }

    #[test]
    fn the_cause_is_told_in_words() {
        let cause = |cause: &str, lead_days| {
            TypeInShort { cause: cause.into(), lead_days, ..TypeInShort::default() }.caused()
        };
        assert_eq!(cause("scheduled", Some(7)), "Scheduled: 7 days before a date");
        assert_eq!(cause("scheduled", Some(1)), "Scheduled: 1 day before a date");
        assert_eq!(cause("action", None), "An action");
        assert_eq!(of("a b/c", "", None).link(), "/catalogue/a%20b%2Fc");
        assert_eq!(of("import", "", None).link(), "/catalogue/types/import", "the other is a form");
    }

    fn api() -> Router {
        let listed = json!({ "items": [{ "product": "shop", "name": "Shop", "note": "Read me.", "event_types": 1, "triggers": 0,
            "profile": "shop", "built_in": false, "revision": 7, "updated_at": "2026-11-22T19:00:00Z" }], "next": null });
        let whole = json!({ "schema": 1, "product": { "id": "shop", "name": "Shop" },
            "category": [{ "id": "o", "label": "Orders" }],
            "event_type": [{ "name": "A/B", "label": "An order", "category": "o", "conditions": ["it is paid"] }] });
        let types = json!({ "items": [{ "name": "A/B", "label": "An order", "product": "shop", "category": "o", "cause": "action" }], "next": null });
        let one = json!({ "name": "A/B", "label": "An order", "product": "shop", "category": "o", "category_label": "Orders",
            "conditions": ["it is paid"], "description": "Told by `order.paid`.", "example": "{\"data\":1}", "webhooks": 3, "cause": "action",
            "data_schema": { "properties": { "amount": { "type": "number", "description": "How much" } }, "required": ["amount"] },
            "triggers": [{ "action": "pay", "description": "Money", "emit": [{ "for_each": ["/data/a"] }] }] });
        let put = |axum::extract::RawQuery(query): axum::extract::RawQuery| async move {
            let dry_run = query.is_some_and(|query| query.contains("dry_run=true"));
            Json(json!({ "product": "shop", "dry_run": dry_run, "revision": 7,
                "changes": [{ "part": "event_type", "name": "C", "how": "added", "sentence": "event type C: added" }], "findings": [] }))
        };
        Router::new()
            .route("/v1/catalogues", get(move || async move { Json(listed) }))
            .route("/v1/catalogues/shop", get(move || async move { Json(whole) }).put(put))
            .route("/v1/event-types", get(move || async move { Json(types) }))
            .route("/v1/event-types/{name}", get(move || async move { Json(one) }))
            .route(
                "/v1/webhooks",
                get(|| async { Json(json!({ "items": [{ "id": "wh_1", "name": "billing" }] })) }),
            )
    }

    #[tokio::test]
    async fn every_type_has_a_page() {
        let stage = Stage::new(api());
        let (status, text) = stage.get("/catalogue").await;
        assert_eq!(status, 200, "{text}");
        assert!(
            text.contains("/catalogue/A%2FB") && text.contains("Orders") && text.contains("revision 7"),
            "{text}"
        );
        let (_, form) = stage.get("/catalogue/import").await;
        assert!(form.contains("<h1>Import a catalogue</h1>"), "{form}");
        let (_, of_that_name) = stage.get("/catalogue/types/import").await;
        assert!(of_that_name.contains("data-testid=\"create\""), "{of_that_name}");
        let (status, text) = stage.get("/catalogue/A%2FB").await;
        assert_eq!(status, 200, "{text}");
        for part in [
            "Told by <code>order.paid</code>.",
            "it is paid",
            "How much",
            "billing",
            "/webhooks/new?event_type=A%2FB",
            "/data/a",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[tokio::test]
    async fn a_product_has_a_page_of_what_triggers_its_webhooks() {
        let stage = Stage::new(api());
        let (status, text) = stage.get("/catalogue/products/shop/triggers").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("What triggers a webhook: Shop") && text.contains("it is paid"), "{text}");
        let (headers, text) = stage.file("/catalogue/products/shop/triggers.md").await;
        assert_eq!(headers["content-disposition"], "attachment; filename=\"shop-triggers.md\"");
        assert!(text.starts_with("# What triggers a webhook: Shop\n"), "{text}");
        let (_, text) = stage.file("/catalogue/products/shop/catalogue.json").await;
        assert!(serde_json::from_str::<Value>(&text).is_ok_and(|it| it["product"]["id"] == "shop"), "{text}");
    }

    #[tokio::test]
    async fn an_import_is_looked_at_before_it_is_done() {
        let stage = Stage::new(api());
        let (status, _, text) = stage.send("/catalogue/import", &[("text", "oops")]).await;
        assert_eq!(status, 422);
        assert!(text.contains("This is not TOML: line 1") && text.contains(">\noops</textarea>"), "{text}");
        let toml = ("text", "schema = 1\n[product]\nid = \"shop\"\nname = \"<Shop>\"\n");
        let (status, _, text) = stage.send("/catalogue/import", &[toml]).await;
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("event type C: added") && text.contains("Import 1 change"), "{text}");
        assert!(text.contains("&#60;Shop&#62;"), "the text goes on to the next form: {text}");
        let (status, leads, _) = stage.send("/catalogue/import/confirm", &[toml]).await;
        assert_eq!((status.as_u16(), leads.as_str()), (303, "/catalogue?product=shop"));
        let (status, _, text) = stage.send("/catalogue/import/edit", &[toml]).await;
        assert_eq!(status, 200);
        assert!(text.contains("&#60;Shop&#62;"), "{text}");
    }
}
