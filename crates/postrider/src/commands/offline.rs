//! What the router would do with events and actions, said without a broker: by the router's own rules.

use std::collections::HashMap;
use std::path::Path;

use postrider_core::catalogue::Catalogue;
use postrider_core::directory::{Applied, Directory, Routed};
use postrider_core::intake::{self, Envelope, Refusal, RefusalReason, Report};
use postrider_core::spelling::suggestion;
use postrider_core::wire::{
    CatalogueRecord, ConfigKind, ConfigRecord, SchemaMode, TenantRecord, TenantSettings, UnknownTypes,
};
use postrider_core::{Epoch, EventId, TenantId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::catalogue::{all_stored, read_sound};
use super::{Context, read_text};
use crate::args::Against;
use crate::builtin;
use crate::exit::{Exit, Failure};

/// The most messages that are looked at.
const MAX_MESSAGES: usize = 10_000;

/// A router without a broker: it knows one tenant and some catalogues.
#[derive(Debug)]
pub(super) struct Offline {
    directory: Directory,
    tenant: TenantId,
    /// Names of actions and of event types, to say what may have been meant.
    names: [Vec<String>; 2],
}

/// An event as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) event_type: String,
    event_time: String,
    pub(super) key: Option<String>,
    correlation_id: Option<String>,
    current_context: Box<RawValue>,
    pub(super) data: Box<RawValue>,
}

impl From<&Routed> for Shown {
    fn from(routed: &Routed) -> Self {
        let event = &routed.event;
        Self {
            id: event.id.as_str().to_owned(),
            event_type: event.event_type.as_str().to_owned(),
            event_time: event.event_time.as_ref().to_owned(),
            key: event.key.as_deref().map(str::to_owned),
            correlation_id: event.correlation_id.as_deref().map(str::to_owned),
            current_context: event.current_context.as_ref().to_owned(),
            data: event.data.as_ref().to_owned(),
        }
    }
}

impl Offline {
    /// With the given catalogues; else with those of the tenant that was named; else with the built-in ones.
    ///
    /// # Errors
    /// [`Failure`] when a catalogue cannot be had or used.
    pub(super) async fn new(context: &Context, against: &Against) -> Result<Self, Failure> {
        let catalogues = match (&against.catalogues[..], &context.tenant) {
            ([], Some(_)) => all_stored(context).await?,
            ([], None) => builtin::NAMES
                .into_iter()
                .map(|name| Ok(read_sound(Path::new(name), Some(name))?.catalogue))
                .collect::<Result<_, Failure>>()?,
            (files, _) => files
                .iter()
                .map(|file| Ok(read_sound(file, None)?.catalogue))
                .collect::<Result<_, Failure>>()?,
        };
        let tenant = match &context.tenant {
            Some(tenant) => TenantId::parse(tenant).map_err(|error| Failure::usage("--tenant", error))?,
            None => TenantId::default_tenant(),
        };
        Self::of(tenant, &catalogues)
    }

    /// With these catalogues. Unknown types and data that does not fit are refused.
    fn of(tenant: TenantId, catalogues: &[Catalogue]) -> Result<Self, Failure> {
        let mut owner: HashMap<&str, &str> = HashMap::new();
        for catalogue in catalogues {
            let product = catalogue.product.id.as_str();
            let names = catalogue.event_types.iter().flat_map(|e| std::iter::once(&e.name).chain(&e.aliases));
            for name in names {
                if let Some(other) = owner.insert(name.as_str(), product) {
                    let why = format!("{other} and {product} both have the event type {:?}", name.as_str());
                    return Err(Failure::new(Exit::Invalid, "cannot use these catalogues together", why));
                }
            }
        }
        let epoch = Epoch::from_trusted("offline");
        let settings = TenantSettings {
            unknown_types: UnknownTypes::Refuse,
            schemas: SchemaMode::Refuse,
            ..TenantSettings::default()
        };
        let mut records = vec![
            ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotBegin, ""),
            ConfigRecord::of(
                &epoch,
                1,
                ConfigKind::Tenant,
                tenant.as_str(),
                &TenantRecord { id: tenant.clone(), settings },
            ),
        ];
        records.extend(catalogues.iter().map(|catalogue| {
            let id = format!("{tenant}/{}", catalogue.product.id);
            let record = CatalogueRecord { tenant: tenant.clone(), catalogue: catalogue.clone() };
            ConfigRecord::of(&epoch, 1, ConfigKind::Catalogue, &id, &record)
        }));
        records.push(ConfigRecord::bare(&epoch, 1, ConfigKind::SnapshotEnd, ""));
        let mut directory = Directory::new();
        for record in &records {
            if let Applied::Unreadable(why) = directory.apply(record) {
                return Err(Failure::new(Exit::Invalid, "cannot use these catalogues", why));
            }
        }
        let actions = catalogues.iter().flat_map(|catalogue| &catalogue.triggers);
        let types = catalogues.iter().flat_map(|catalogue| &catalogue.event_types);
        let names = [
            actions.map(|trigger| trigger.action.to_string()).collect(),
            types.map(|entry| entry.name.to_string()).collect(),
        ];
        Ok(Self { directory, tenant, names })
    }

    /// Reads a message as the router does.
    pub(super) fn read(&self, message: &str) -> Result<Report, Refusal> {
        let envelope = Envelope { routing_key: self.tenant.as_str(), ..Envelope::default() };
        intake::read(envelope, message.as_bytes(), postrider_broker::now(), EventId::from_trusted("made"))
    }

    /// What becomes of it; no events where no trigger of an action applies.
    pub(super) fn resolve(&self, report: Report) -> Result<Vec<Shown>, Refusal> {
        let (action, name) = match &report {
            Report::Action(action) => (Some(action.id.clone()), action.name.clone()),
            Report::Event(event) => (None, event.event_type.clone()),
        };
        let routed = self.directory.resolve(report, None).map_err(|mut refusal| {
            let [actions, types] = &self.names;
            let known = match refusal.reason {
                RefusalReason::UnknownAction => &actions[..],
                RefusalReason::UnknownEventType => &types[..],
                _ => &[],
            };
            refusal.detail.push_str(&suggestion(name.as_str(), known.iter().map(String::as_str)));
            refusal
        })?;
        // Of an action that nothing came of the router keeps a note, under the action's own id.
        Ok(routed
            .iter()
            .filter(|routed| Some(&routed.event.id) != action.as_ref())
            .map(Shown::from)
            .collect())
    }
}

/// The messages in a file: one JSON document, over as many lines as it likes, or one a line; each with its line.
pub(super) fn messages(path: &Path) -> Result<Vec<(usize, String)>, Failure> {
    split(&read_text(path)?).map_err(|why| Failure::usage(format!("cannot use {}", path.display()), why))
}

fn split(text: &str) -> Result<Vec<(usize, String)>, String> {
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return Ok(vec![(1, text.trim().to_owned())]);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let messages: Vec<(usize, String)> =
        lines.map(|(number, line)| (number + 1, line.trim().to_owned())).take(MAX_MESSAGES + 1).collect();
    match messages.len() {
        0 => Err("there is nothing in it".to_owned()),
        count if count > MAX_MESSAGES => Err(format!("it has more than {MAX_MESSAGES} messages")),
        _ => Ok(messages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline() -> Offline {
        let catalogues: Vec<Catalogue> =
            builtin::all().map(|(_, text)| toml::from_str(text).unwrap()).collect();
        Offline::of(TenantId::default_tenant(), &catalogues).unwrap()
    }

    #[test]
    fn a_transfer_of_units_is_four_events() {
        let offline = offline();
        let action = r#"{"action":"units.transferred","id":"t-1","data":{
            "sender":{"customer":{"customerId":"m-1"}},"receiver":{"customer":{"customerId":"m-2"}}}}"#;
        let events = offline.resolve(offline.read(action).unwrap()).unwrap();
        let shown: Vec<(&str, Option<&str>)> =
            events.iter().map(|event| (event.event_type.as_str(), event.key.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("AvailablePointsAmountChanged", Some("m-1")),
                ("AvailablePointsAmountChanged", Some("m-2")),
                ("WalletBalanceUpdated", Some("m-1")),
                ("WalletBalanceUpdated", Some("m-2")),
            ]
        );
    }

    #[test]
    fn aliases_are_renamed_and_what_nobody_knows_is_refused() {
        let offline = offline();
        let events = offline
            .resolve(offline.read(r#"{"event_type":"Client added two_factor auth"}"#).unwrap())
            .unwrap();
        assert_eq!(events[0].event_type, "Client added two factor auth");
        let meant =
            offline.resolve(offline.read(r#"{"action":"units.transfered","id":"a"}"#).unwrap()).unwrap_err();
        assert!(meant.detail.ends_with("did you mean units.transferred?"), "{}", meant.detail);
        let refused = |message: &str| match offline.read(message) {
            Ok(report) => offline.resolve(report).unwrap_err().reason.as_str(),
            Err(refusal) => refusal.reason.as_str(),
        };
        assert_eq!(refused(r#"{"event_type":"Client vanished"}"#), "unknown_event_type");
        assert_eq!(refused(r#"{"action":"client.vanished","id":"a"}"#), "unknown_action");
        assert_eq!(refused(r#"{"action":"client.created"}"#), "action_without_id");
        assert_eq!(
            refused(
                r#"{"action":"units.transferred","id":"a","data":{"sender":{"customer":{"customerId":"m"}}}}"#
            ),
            "subject_absent"
        );
        let nobody = r#"{"action":"client.created","id":"a","current_context":{"actor_type":null}}"#;
        assert!(offline.resolve(offline.read(nobody).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn catalogues_that_share_a_name_are_not_mixed() {
        let (_, text) = builtin::all().next().unwrap();
        let one: Catalogue = toml::from_str(text).unwrap();
        let mut other = one.clone();
        other.product.id = "other".to_owned();
        let failure = Offline::of(TenantId::default_tenant(), &[one, other]).unwrap_err();
        assert!(failure.to_string().contains("entrust-idaas and other both have"), "{failure}");
    }

    #[test]
    fn a_file_holds_one_document_or_one_a_line() {
        assert_eq!(split("{\n \"a\": 1\n}\n").unwrap().len(), 1);
        let lines = split("{\"a\":1}\n\n{\"b\":2}\nno JSON\n").unwrap();
        assert_eq!(lines[1], (3, "{\"b\":2}".to_owned()));
        assert_eq!(lines[2], (4, "no JSON".to_owned()));
        assert!(split(" \n").is_err());
        assert!(split(&"{}\n".repeat(MAX_MESSAGES + 1)).is_err());
    }
}
