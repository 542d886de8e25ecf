//! Names of things: tenants, events, webhooks, deliveries.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(deserialize_with = "crate::shared::text")] Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as text that is shared, not copied.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }

            /// Takes text that is known to be an id: it came from our own store or messages, or was checked before.
            pub fn from_trusted(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.0)
            }
        }
    };
}

id! {
    /// The owner of webhooks and events. Also the routing key with which upstream publishes.
    TenantId
}
id! {
    /// What makes an event the same event when it is published twice: 1 to 128 printable ASCII characters.
    EventId
}
id! {
    /// A receiver's registration.
    WebhookId
}
id! {
    /// One event for one webhook. Made from both, so that it is the same whoever makes it and however often.
    DeliveryId
}
id! {
    /// Which store the configuration came from. A new or restored store is another epoch, and revisions of different
    /// epochs do not compare.
    Epoch
}

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct BadId {
    what: &'static str,
    rule: &'static str,
}

impl TenantId {
    /// Reads a tenant's name: 1 to 64 of `a-z`, `A-Z`, `0-9`, `-` and `_`, so that it is one word of a routing key.
    ///
    /// # Errors
    /// [`BadId`] with the rule in it.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
            return Err(BadId { what: "a tenant", rule: "1 to 64 characters of a-z, A-Z, 0-9, - and _" });
        }
        Ok(Self(text.into()))
    }

    /// The name of the tenant that exists from the start.
    pub const DEFAULT: &str = "default";

    /// The tenant that exists from the start.
    pub fn default_tenant() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl EventId {
    /// Reads an event id: 1 to 128 printable ASCII characters (DESIGN §6).
    ///
    /// # Errors
    /// [`BadId`] with the rule in it.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(BadId { what: "an event id", rule: "1 to 128 printable ASCII characters" });
        }
        Ok(Self(text.into()))
    }
}

impl DeliveryId {
    /// The id of the delivery of this event to this webhook: 32 hexadecimal digits, half of them made of the event and half
    /// of a hash of all three names.
    ///
    /// The same over retries, redeliveries and replays, and whichever router makes it, so that receivers and the books
    /// can recognise duplicates. Deliveries of one event lie beside each other in the order of ids, and behind those of
    /// earlier events where these have ids that say when they were made (a UUID of version 7, RFC 9562, at their end): an
    /// index grows at few places then, and costs less the larger it is.
    pub fn of(tenant: &TenantId, event: &EventId, webhook: &WebhookId) -> Self {
        let [mut first, mut second] = [[0; 8]; 2];
        first.copy_from_slice(&digest_of(&[tenant.as_str(), event.as_str()])[..8]);
        if let Some(time) = time_of(event.as_str()) {
            first[..6].copy_from_slice(&time);
        }
        second.copy_from_slice(&digest_of(&[tenant.as_str(), event.as_str(), webhook.as_str()])[..8]);
        Self(hex(&[first, second].concat()).into())
    }

    /// The value of the `webhook-id` header.
    pub fn message_id(&self) -> String {
        format!("msg_{}", self.0)
    }

    /// The id in the form of a UUID of version 8 (RFC 9562), for receivers that want one.
    pub fn uuid(&self) -> String {
        let digit =
            |at: usize| self.0.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        // An id that is not 32 hexadecimal digits is none of ours; its UUID is still always the same.
        let other = || digest_of(&[&self.0]).first_chunk().copied().unwrap_or_default();
        let bytes: Option<Vec<u8>> = (0..16).map(digit).collect();
        let mut bytes: [u8; 16] = bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_else(other);
        bytes[6] = 0x80 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        let hex = hex(&bytes);
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

impl WebhookId {
    /// Which shard carries this webhook's deliveries: the same for the life of a shard count.
    ///
    /// `shards` must be at least 1; 0 is read as 1.
    pub fn shard(&self, shards: u16) -> u16 {
        let digest = digest_of(&[self.as_str()]);
        let number = u64::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
        ]);
        (number % u64::from(shards.max(1))) as u16
    }
}

/// The time in the UUID of version 7 with which an id ends, with hyphens or without them, alone or behind a `_`: 48 bits of
/// milliseconds, the highest first.
fn time_of(id: &str) -> Option<[u8; 6]> {
    let uuid = id.rsplit('_').next().unwrap_or(id);
    if uuid.len() != 32
        && !(uuid.len() == 36 && [8, 13, 18, 23].iter().all(|at| uuid.as_bytes()[*at] == b'-'))
    {
        return None;
    }
    let digits = uuid.replace('-', "");
    let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
    let (version, variant) = (bits >> 76 & 0xf, bits >> 62 & 0b11);
    if (version, variant) != (7, 0b10) {
        return None;
    }
    bits.to_be_bytes().first_chunk().copied()
}

/// SHA-256 over parts that cannot run into each other: each is preceded by its length.
pub(crate) fn digest_of(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_depends_on_all_three_names_and_their_borders() {
        let of = |t: &str, e: &str, w: &str| {
            DeliveryId::of(&TenantId::from_trusted(t), &EventId::from_trusted(e), &WebhookId::from_trusted(w))
        };
        assert_eq!(of("t", "e", "w"), of("t", "e", "w"));
        assert_ne!(of("te", "", "w"), of("t", "e", "w"));
        assert_ne!(of("t", "e", "w"), of("t", "w", "e"));
        assert_eq!(of("default", "evt_1", "wh_1").as_str(), "42c75608e3b3303a19860c55b78c77e0");
        assert_eq!(of("default", "evt_1", "wh_1").uuid(), "42c75608-e3b3-803a-9986-0c55b78c77e0");
        assert_eq!(DeliveryId::from_trusted("no digits").uuid().len(), 36);
    }

    #[test]
    fn deliveries_lie_in_the_order_of_events_that_say_when_they_were_made() {
        let of = |event: &str, webhook: &str| {
            let event = EventId::parse(event).unwrap();
            DeliveryId::of(&TenantId::default_tenant(), &event, &WebhookId::from_trusted(webhook))
        };
        // 2026-11-22T00:00:00Z, and a second later.
        let (one, later) = ("01a2008d74007a2b8f3e0123456789ab", "01a2008d77e87a2b8f3e0123456789ab");
        for webhook in ["wh_1", "wh_2", "wh_3"] {
            assert!(of(&format!("evt_{one}"), webhook) < of(&format!("evt_{later}"), "wh_1"));
            assert_eq!(&of(&format!("evt_{one}"), webhook).as_str()[..12], &one[..12]);
            assert_eq!(of("order 17", webhook).as_str()[..16], of("order 17", "wh_1").as_str()[..16]);
        }
        assert_eq!(time_of("01a2008d-7400-7a2b-8f3e-0123456789ab"), time_of(one));
        for none in ["", "order-17", &one.replace("7a2b", "4a2b"), &one.replace("8f3e", "cf3e"), &one[1..]] {
            assert_eq!(time_of(none), None, "{none}");
        }
        assert_eq!(time_of("+1a2008d74007a2b8f3e0123456789ab"), None, "a sign is no digit");
    }

    #[test]
    fn tenants_are_one_word_of_a_routing_key() {
        assert!(TenantId::parse("acme-eu_1").is_ok());
        for bad in ["", "a.b", "a b", "*", "#", "ä", &"x".repeat(65)] {
            assert!(TenantId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn event_ids_are_printable_ascii() {
        assert!(EventId::parse("order 17/paid").is_ok());
        for bad in ["", "a\nb", "ü", "a\u{7f}", &"x".repeat(129)] {
            assert!(EventId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shards_are_spread_and_stable() {
        let id = |n: u32| WebhookId::from_trusted(format!("wh_{n}"));
        let on_zero = (0..1000).filter(|n| id(*n).shard(2) == 0).count();
        assert!((400..600).contains(&on_zero), "{on_zero}");
        assert_eq!(id(7).shard(0), 0);
    }
}
