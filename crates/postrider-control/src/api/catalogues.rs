//! `/v1/catalogues`: the event types of products, their triggers and profiles.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use postrider_core::catalogue::{self, Catalogue, Finding, OWN, Severity};
use postrider_core::profile::Profile;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, shown};
use super::audit::{Changes, Subject};
use super::body::{self, Params};
use super::problem::{Code, Problem, ProblemBody};
use super::scope::Scope;
use crate::store::{CatalogueRow, Change, MAX_CATALOGUES, Term, TermKind, terms};

/// Names that are told of those that clash or are in use.
const TOLD: usize = 50;

/// A catalogue in short.
#[derive(Serialize, ToSchema)]
#[schema(as = CatalogueSummary)]
pub(super) struct Summary {
    product: String,
    name: String,
    note: String,
    categories: usize,
    groups: usize,
    event_types: usize,
    triggers: usize,
    /// The name of the profile that it brings.
    profile: Option<String>,
    /// It comes with Postrider and cannot be changed.
    built_in: bool,
    revision: Option<u64>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl Summary {
    fn of(catalogue: Catalogue) -> Self {
        Self {
            categories: catalogue.categories.len(),
            groups: catalogue.groups.len(),
            event_types: catalogue.event_types.len(),
            triggers: catalogue.triggers.len(),
            profile: catalogue.profile.map(|profile| profile.name),
            built_in: catalogue.product.id == OWN,
            product: catalogue.product.id,
            name: catalogue.product.name,
            note: catalogue.product.note,
            revision: None,
            created_at: None,
            updated_at: None,
        }
    }
}

impl From<CatalogueRow> for Summary {
    fn from(row: CatalogueRow) -> Self {
        Self {
            revision: Some(row.revision),
            created_at: Some(shown(row.created_at)),
            updated_at: Some(shown(row.updated_at)),
            ..Self::of(row.catalogue)
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = CatalogueList)]
pub(super) struct Summaries {
    items: Vec<Summary>,
    /// Always null: a tenant has few catalogues.
    next: Option<String>,
}

/// Lists the catalogues of a tenant by product, the one of Postrider's own events last.
#[utoipa::path(get, path = "/v1/catalogues", tag = "catalogues", operation_id = "list_catalogues",
    params(("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Summaries), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): State<Arc<Api>>, scope: Scope) -> Result<Answer, Problem> {
    let rows = api.store.catalogues(scope.tenant().as_str()).await?;
    let own = Summary::of(catalogue::own());
    Answer::ok(&Summaries { items: rows.into_iter().map(Summary::from).chain([own]).collect(), next: None })
}

/// One catalogue, in the form in which it can be put again.
#[utoipa::path(get, path = "/v1/catalogues/{product}", tag = "catalogues", operation_id = "get_catalogue",
    params(("product" = String, Path, description = "The product"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 200, body = Object), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(product): Path<String>,
) -> Result<Answer, Problem> {
    if product == OWN {
        return Answer::ok(&catalogue::own());
    }
    match api.store.catalogue(scope.tenant().as_str(), &product).await? {
        Some(row) => Answer::ok(&row.catalogue),
        None => Err(unknown()),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Whose; `default` by default.
    #[allow(dead_code, reason = "read by `Scope`")]
    tenant: Option<String>,
    /// `true` to be told what would change, and change nothing.
    dry_run: Option<bool>,
}

/// What an import changes.
#[derive(Serialize, ToSchema)]
#[schema(as = CatalogueImport)]
pub(super) struct Import {
    product: String,
    /// Nothing was changed.
    dry_run: bool,
    /// The revision of the catalogue; missing after a dry run of a new one.
    revision: Option<u64>,
    /// What changes: `part`, `name`, `how` and the same in a `sentence`.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<catalogue::Change>,
    /// What looks wrong and should be looked at: `severity`, `at`, `problem` and `hint`.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Finding>,
}

/// Imports a catalogue: makes it, or replaces the one of its product as a whole.
///
/// The body is a file of `catalogues/` as JSON. An import is refused as a whole if the catalogue has errors (422, all of
/// them in `findings`), if another catalogue of the tenant has some of its names (409, in `clashes`), or if it lacks what
/// the one before had and webhooks or reminders use (409, in `uses`). With `dry_run=true` the answer is the same and
/// nothing changes.
#[utoipa::path(put, path = "/v1/catalogues/{product}", tag = "catalogues", operation_id = "put_catalogue",
    params(("product" = String, Path, description = "The product, as in the body"), Asked),
    request_body = Object,
    responses((status = 200, body = Import), (status = 201, body = Import), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(product): Path<String>,
    Params(asked): Params<Asked>,
    given: Bytes,
) -> Result<Answer, Problem> {
    let tenant = scope.tenant();
    let (catalogue, findings) = read(&product, &given)?;
    let mut change = api.store.change().await?;
    if !change.has_tenant(tenant.as_str()).await? {
        let detail = format!("there is no tenant {:?}", tenant.as_str());
        return Err(Problem::new(Code::UnknownTenant, detail, "POST /v1/tenants makes one.").field("tenant"));
    }
    let before = change.catalogue(tenant.as_str(), &product).await?;
    if before.is_none() && change.count_catalogues(tenant.as_str()).await? >= MAX_CATALOGUES as u64 {
        let detail = format!("a tenant has at most {MAX_CATALOGUES} catalogues");
        return Err(Problem::new(Code::Quota, detail, "Delete catalogues that are not needed."));
    }
    let defined = terms(&catalogue);
    refuse_clashes(&mut change, tenant.as_str(), &product, &defined).await?;
    let old = before.as_ref().map(|row| &row.catalogue);
    if let Some(old) = old {
        refuse_loss(&mut change, tenant.as_str(), old, Some(&catalogue)).await?;
    }
    let dry_run = asked.dry_run.unwrap_or(false);
    let changes = catalogue::diff(old, &catalogue);
    let mut revision = before.as_ref().map(|row| row.revision);
    let same = old.is_some_and(|old| json!(old) == json!(catalogue));
    if !dry_run && !same {
        let now = postrider_broker::now();
        let put = change.put_catalogue(&tenant, &catalogue, now).await?;
        let noted = Changes::none().turned("revision", revision, put).with("changes", changes.len());
        change.note(&scope.entry(Some(&tenant), Subject::Catalogue, &product, noted), now).await?;
        revision = Some(put);
    }
    let status = if before.is_none() && !dry_run { StatusCode::CREATED } else { StatusCode::OK };
    let answer = Answer::json(status, &Import { product, dry_run, revision, changes, findings })?;
    if !dry_run {
        change.commit().await?;
    }
    Ok(answer)
}

/// Reads and checks a catalogue; what remains of the findings is suspects.
fn read(product: &str, given: &[u8]) -> Result<(Catalogue, Vec<Finding>), Problem> {
    let value: Value = body::read(given)?;
    let unknown = catalogue::unknown_members(&value);
    let catalogue: Catalogue = body::read(given)?;
    if catalogue.product.id != product {
        let name: String = catalogue.product.id.chars().take(64).collect();
        let detail = format!("the path says {product:?}, the catalogue is of the product {name:?}");
        return Err(Problem::body("product.id", detail));
    }
    if product == OWN {
        return Err(reserved());
    }
    let mut findings = unknown;
    findings.extend(catalogue::check(&catalogue));
    let (errors, suspects): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    match errors.first() {
        None => Ok((catalogue, suspects)),
        Some(first) => {
            let more = match errors.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let detail = format!("{}: {}{more}", first.at, first.problem);
            let hint = "Correct what `findings` lists and send the catalogue again.";
            let all: Vec<Finding> = errors.into_iter().chain(suspects).collect();
            Err(Problem::new(Code::BadCatalogue, detail, hint).with("findings", json!(all)))
        }
    }
}

fn reserved() -> Problem {
    let detail = "the catalogue postrider holds Postrider's own events and cannot be changed";
    Problem::new(Code::CatalogueClash, detail, "Give the product another id.").field("product.id")
}

/// Refuses a catalogue that defines what another one of the tenant does, or what comes with Postrider.
async fn refuse_clashes(
    change: &mut Change<'_>,
    tenant: &str,
    product: &str,
    defined: &[Term],
) -> Result<(), Problem> {
    let mut clashes = change.clashes(tenant, product, defined).await?;
    clashes.extend(
        terms(&catalogue::own())
            .into_iter()
            .filter(|own| defined.iter().any(|term| term.kind == own.kind && term.name == own.name)),
    );
    let Some(first) = clashes.first() else { return Ok(()) };
    let detail =
        format!("the catalogue {:?} has the {} {:?} already", first.product, first.kind.as_str(), first.name);
    let hint = "Names, aliases, groups, categories and profiles are there once within a tenant: rename them, or \
                remove them from the other catalogue first.";
    let told: Vec<Value> = clashes
        .iter()
        .take(TOLD)
        .map(|term| json!({ "kind": term.kind.as_str(), "name": term.name, "product": term.product }))
        .collect();
    Err(Problem::new(Code::CatalogueClash, detail, hint).with("clashes", told))
}

/// Something of a catalogue that somebody uses.
#[derive(Serialize)]
struct Use {
    kind: &'static str,
    name: String,
    webhooks: u64,
    reminders: u64,
}

/// Refuses to take away what webhooks and reminders use.
async fn refuse_loss(
    change: &mut Change<'_>,
    tenant: &str,
    old: &Catalogue,
    new: Option<&Catalogue>,
) -> Result<(), Problem> {
    let kept: BTreeSet<(TermKind, String)> =
        new.map(terms).unwrap_or_default().into_iter().map(|term| (term.kind, term.name)).collect();
    let lost: Vec<Term> =
        terms(old).into_iter().filter(|term| !kept.contains(&(term.kind, term.name.clone()))).collect();
    let mut uses: Vec<Use> = change
        .subscribed(tenant, &lost)
        .await?
        .into_iter()
        .map(|(term, webhooks)| Use { kind: term.kind.as_str(), name: term.name, webhooks, reminders: 0 })
        .collect();
    for term in lost.into_iter().filter(|term| term.kind == TermKind::Type) {
        let reminders = change.count_pending_reminders(tenant, Some(&term.name)).await?;
        if reminders > 0 {
            match uses.iter_mut().find(|it| it.kind == term.kind.as_str() && it.name == term.name) {
                Some(known) => known.reminders = reminders,
                None => {
                    uses.push(Use { kind: term.kind.as_str(), name: term.name, webhooks: 0, reminders });
                }
            }
        }
    }
    if let Some(profile) = &old.profile {
        uses.extend(profile_uses(change, tenant, profile.clone(), new).await?);
    }
    let Some(first) = uses.first() else { return Ok(()) };
    let detail = match first.kind {
        "signature.key" => {
            format!("webhooks that speak the profile {:?} have secrets of another form", first.name)
        }
        "https_only" => format!("webhooks that speak the profile {:?} have http: URLs", first.name),
        kind => format!("the {kind} {:?} would be removed, and is used", first.name),
    };
    let hint = "Change or delete what uses it first: GET /v1/webhooks?event_type= and ?profile= find the webhooks, GET \
         /v1/reminders?event_type= the reminders.";
    uses.truncate(TOLD);
    Err(Problem::new(Code::CatalogueInUse, detail, hint).with("uses", json!(uses)))
}

/// Webhooks that speak what a profile would not be any more.
async fn profile_uses(
    change: &mut Change<'_>,
    tenant: &str,
    old: postrider_core::profile::ProfileSpec,
    new: Option<&Catalogue>,
) -> Result<Vec<Use>, Problem> {
    let use_of = |kind, name: &str, webhooks| Use { kind, name: name.to_owned(), webhooks, reminders: 0 };
    let new = new.and_then(|catalogue| catalogue.profile.clone()).filter(|new| new.name == old.name);
    let new = new.and_then(|spec| Profile::new(spec).ok());
    let Some(new) = new else {
        let n = change.count_speakers(tenant, &old.name, None).await?;
        return Ok((n > 0).then(|| use_of("profile", &old.name, n)).into_iter().collect());
    };
    let mut uses = Vec::new();
    let versions =
        std::iter::once(&old.version).chain(old.other_versions.iter().map(|version| &version.name));
    for version in versions.filter(|version| !version.is_empty() && !new.has_version(version)) {
        let n = change.count_speakers(tenant, &old.name, Some(version)).await?;
        uses.extend((n > 0).then(|| use_of("payload_version", version, n)));
    }
    if new.key_form() != old.signature.key {
        let n = change.count_speakers(tenant, &old.name, None).await?;
        uses.extend((n > 0).then(|| use_of("signature.key", &old.name, n)));
    }
    if new.spec().https_only && !old.https_only {
        let n = change.count_plain_speakers(tenant, &old.name).await?;
        uses.extend((n > 0).then(|| use_of("https_only", &old.name, n)));
    }
    Ok(uses)
}

/// Removes a catalogue that nothing uses.
#[utoipa::path(delete, path = "/v1/catalogues/{product}", tag = "catalogues", operation_id = "delete_catalogue",
    params(("product" = String, Path, description = "The product"), ("tenant" = Option<String>, Query, description = "Whose; `default` by default")),
    responses((status = 204), (status = "4XX", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    scope: Scope,
    Path(product): Path<String>,
) -> Result<Answer, Problem> {
    if product == OWN {
        return Err(reserved());
    }
    let tenant = scope.tenant();
    let mut change = api.store.change().await?;
    let Some(row) = change.catalogue(tenant.as_str(), &product).await? else { return Err(unknown()) };
    refuse_loss(&mut change, tenant.as_str(), &row.catalogue, None).await?;
    let now = postrider_broker::now();
    change.delete_catalogue(tenant.as_str(), &product, now).await?;
    let noted = Changes::none().was("revision", row.revision);
    change.note(&scope.entry(Some(&tenant), Subject::Catalogue, &product, noted), now).await?;
    change.commit().await?;
    Ok(Answer::nothing())
}

fn unknown() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no catalogue of this product in this tenant",
        "GET /v1/catalogues lists them; PUT /v1/catalogues/{product} imports one.",
    )
}
