//! Names that were run together when a list was copied, such as `APP_CREATEDAPP_MODIFIED`.
//!
//! There is no certain sign, so these are only suspects. What is looked for: a name that is other names of the list, one
//! after the other; a word that begins with one with which names of events end; a name that begins anew, or ends twice, in the
//! middle of a word.

use std::collections::HashMap;

/// Words with which names of events often end; where more follows without a separator, two names may have met.
const ENDINGS: [&str; 40] = [
    "accepted",
    "activated",
    "added",
    "adjusted",
    "applied",
    "assigned",
    "blocked",
    "changed",
    "checked",
    "combined",
    "completed",
    "created",
    "deactivated",
    "deleted",
    "disabled",
    "dispatched",
    "enabled",
    "expired",
    "failed",
    "granted",
    "initiated",
    "logout",
    "modified",
    "obtained",
    "received",
    "registered",
    "rejected",
    "removed",
    "renewed",
    "requested",
    "required",
    "reset",
    "revoked",
    "sent",
    "started",
    "stopped",
    "succeeded",
    "updated",
    "verified",
    "viewed",
];

/// A list of names, and how often it has each word of them.
pub(super) struct Names<'a> {
    names: Vec<&'a str>,
    words: HashMap<String, usize>,
}

impl<'a> Names<'a> {
    /// These names.
    pub(super) fn new(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let mut counted: HashMap<String, usize> = HashMap::new();
        for (_, word) in names.iter().flat_map(|name| words(name)) {
            *counted.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
        Self { names, words: counted }
    }

    /// The parts that `name`, one of the list or not, seems to be made of, or nothing.
    pub(super) fn parts(&self, name: &str) -> Option<Vec<String>> {
        let listed = self.names.contains(&name);
        let bare = name.trim_end_matches([':', ' ']);
        let mut own: HashMap<String, usize> = HashMap::new();
        if listed {
            for (_, word) in words(name) {
                *own.entry(word.to_ascii_lowercase()).or_default() += 1;
            }
        }
        let elsewhere =
            |word: &str| self.words.get(word).copied().unwrap_or(0) > own.get(word).copied().unwrap_or(0);
        self.chain_of(bare, bare, 0)
            .filter(|parts| parts.len() > 1)
            .or_else(|| inside_a_word(bare, &elsewhere))
            .or_else(|| repeated(bare))
    }

    /// What is left of `whole` as one known name after the other.
    fn chain_of(&self, whole: &str, left: &str, depth: usize) -> Option<Vec<String>> {
        if left.is_empty() {
            return Some(Vec::new());
        }
        if depth == 4 {
            return None;
        }
        self.names.iter().filter(|name| !name.is_empty() && **name != whole).find_map(|name| {
            let mut parts = vec![(*name).to_owned()];
            parts.extend(self.chain_of(whole, left.strip_prefix(name)?, depth + 1)?);
            Some(parts)
        })
    }
}

/// Where a word of `name` is an ending and more, and is not known as one word elsewhere.
fn inside_a_word(name: &str, elsewhere: &impl Fn(&str) -> bool) -> Option<Vec<String>> {
    for (start, word) in words(name) {
        let lower = word.to_ascii_lowercase();
        if elsewhere(&lower) || ENDINGS.contains(&lower.as_str()) || !word.is_ascii() {
            continue;
        }
        // Several cuts may do; the one after the longest ending is the likeliest.
        let cut = ENDINGS
            .iter()
            .filter(|ending| lower.starts_with(**ending) && lower.len() >= ending.len() + 3)
            .filter(|ending| !is_one_word(&lower[ending.len()..]))
            .map(|ending| ending.len())
            .max();
        if let Some(cut) = cut {
            let (first, rest) = name.split_at(start + cut);
            let mut parts = vec![first.to_owned()];
            parts.extend(inside_a_word(rest, elsewhere).unwrap_or_else(|| vec![rest.to_owned()]));
            return Some(parts);
        }
    }
    None
}

/// What may follow an ending within one word: `createdAt`, `sentinel`.
fn is_one_word(rest: &str) -> bool {
    matches!(rest, "ness" | "inel" | "ing" | "ting" | "ence" | "iment" | "table" | "for" | "with" | "without")
}

/// Where `name` begins with the same word again in the middle of a word (`ROLE_CREATEDROLE_UPDATED`), or ends twice with
/// the same word (`INVITE_USERRE_INVITE_USER`).
fn repeated(name: &str) -> Option<Vec<String>> {
    let all: Vec<(usize, &str)> = words(name).collect();
    let (_, first) = *all.first()?;
    let (_, last) = *all.last()?;
    for (start, word) in all.iter().skip(1) {
        if first.len() >= 3 && word.len() > first.len() && word.ends_with(first) {
            return Some(cut(name, start + word.len() - first.len()));
        }
        let more = word.len() > last.len() && start + word.len() < name.len();
        if last.len() >= 3 && more && word.starts_with(last) {
            return Some(cut(name, start + last.len()));
        }
    }
    None
}

fn cut(name: &str, at: usize) -> Vec<String> {
    let (first, rest) = name.split_at(at);
    vec![first.to_owned(), rest.to_owned()]
}

/// The words between separators, each with where it starts. A name in capitals within words (`TransactionRegistered`)
/// is one word: it is compared as a whole.
fn words(name: &str) -> impl Iterator<Item = (usize, &str)> {
    name.split(['_', '.', ' ', '-', ':', '/'])
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - name.as_ptr() as usize, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] = [
        "USER_LOGIN",
        "APP_DELETED",
        "ROLE_DELETED",
        "MFA_RE_INITIATED",
        "PERMISSION_UPDATED",
        "GROUP_NEW_USER_ADDED",
        "passkey.created",
        "USER_CREATED_WITH_INVITE",
    ];

    #[test]
    fn the_six_cells_of_the_seed_are_suspects() {
        for (cell, expected) in [
            ("COMBINEDLOGOUTTOKEN_CHECKED", "COMBINED LOGOUT TOKEN_CHECKED"),
            ("TOKEN_RENEWEDCODE_OBTAINED:", "TOKEN_RENEWED CODE_OBTAINED"),
            ("APP_CREATEDAPP_MODIFIED:", "APP_CREATED APP_MODIFIED"),
            ("ROLE_CREATEDROLE_UPDATED:", "ROLE_CREATED ROLE_UPDATED"),
            ("INVITE_USERRE_INVITE_USER", "INVITE_USER RE_INVITE_USER"),
            ("INVITE_ACCEPTEDINVITE_REVOKED", "INVITE_ACCEPTED INVITE_REVOKED"),
        ] {
            assert_eq!(Names::new(KNOWN).parts(cell).map(|parts| parts.join(" ")).as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_ways_of_spelling_are_recognised_too() {
        for (name, expected) in [
            ("passkey.updatedpasskey.deleted", "passkey.updated passkey.deleted"),
            ("Client updatedClient deleted", "Client updated Client deleted"),
            ("USER_LOGINAPP_DELETED", "USER_LOGIN APP_DELETED"),
        ] {
            assert_eq!(Names::new(KNOWN).parts(name).map(|parts| parts.join(" ")).as_deref(), Some(expected));
        }
        let camel = ["CustomerUpdated", "CustomerDeactivated"];
        assert_eq!(
            Names::new(camel).parts("CustomerUpdatedCustomerDeactivated"),
            Some(camel.map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn ordinary_names_are_not_suspects() {
        for name in [
            "CustomerWasRegisteredWithoutActivation",
            "GROUP_CATEGORY_CREATED",
            "user.registration.completed",
            "Staff created unverified client",
            "AvailablePointsAmountChanged",
            "USERNAME_CHANGED",
            "INVITE_USER",
            "RE_INVITE_USER",
            "createdAt",
            "ü",
        ] {
            assert_eq!(Names::new(KNOWN).parts(name), None, "{name}");
        }
    }
}
