//! Patches: what is given changes, the rest stays (RFC 7396).

use serde_json::Value;

/// `target` with what `patch` says; null takes a member away. As deep as the body was, which is bounded by its reader.
pub(super) fn merge(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut target = match target {
        Value::Object(target) => target,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            let before = target.remove(&name).unwrap_or(Value::Null);
            target.insert(name, merge(before, value));
        }
    }
    Value::Object(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_follows_rfc_7396() {
        let target = json!({ "a": "b", "c": { "d": "e", "f": "g" } });
        let patch = json!({ "a": "z", "c": { "f": null }, "h": { "i": null, "j": 1 } });
        assert_eq!(merge(target, patch), json!({ "a": "z", "c": { "d": "e" }, "h": { "j": 1 } }));
        assert_eq!(merge(json!([1]), json!({ "a": 1 })), json!({ "a": 1 }));
        assert_eq!(merge(json!({ "a": [1, 2] }), json!({ "a": [3] })), json!({ "a": [3] }));
    }
}
