//! The schema of one number only grows: what was valid once stays valid and means the same.

use std::collections::BTreeSet;

use fusebox_policy::wire::SCHEMA;
use serde_json::{Map, Value, json};

/// The schema as instances and readers out there know it. It changes with the number only: what is added to the
/// published one under this number is not added here.
const FROZEN: &str = include_str!("../../testdata/policy-v1.frozen.schema.json");

/// What does not judge.
const WORDS: [&str; 7] = ["$comment", "$defs", "$ref", "$schema", "contentMediaType", "description", "title"];

#[test]
fn what_was_valid_under_this_number_stays_valid() {
    let (old, new): (Value, Value) =
        (serde_json::from_str(FROZEN).unwrap(), serde_json::from_str(super::POLICY).unwrap());
    assert_eq!(old["properties"]["schema"]["const"], json!(SCHEMA), "freeze the schema of the new number");
    let broken = broken(&whole(&old, &old), &whole(&new, &new), "");
    assert!(broken.is_empty(), "readers and writers of schema {SCHEMA} break, raise SCHEMA: {broken:#?}");
}

/// A schema with its references filled in, beside what is said at the place of the reference.
fn whole(schema: &Value, root: &Value) -> Value {
    match schema {
        Value::Object(of) => {
            let mut all: Map<String, Value> =
                of.iter().map(|(key, value)| (key.clone(), whole(value, root))).collect();
            if let Some(at) = of.get("$ref").and_then(Value::as_str) {
                let there = whole(root.pointer(at.trim_start_matches('#')).unwrap(), root);
                all.insert("the reference".to_owned(), there);
            }
            all.into()
        }
        Value::Array(of) => of.iter().map(|item| whole(item, root)).collect(),
        other => other.clone(),
    }
}

/// Where `new` refuses what `old` accepts, demands what it did not, or takes an absent value for another.
fn broken(old: &Value, new: &Value, at: &str) -> Vec<String> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return if old == new { Vec::new() } else { vec![format!("{at}: {old} is {new}")] };
    };
    let mut found = Vec::new();
    let keywords: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for keyword in keywords.into_iter().filter(|keyword| !WORDS.contains(&keyword.as_str())) {
        let at = format!("{at}/{keyword}");
        let (old, new) =
            (&old.get(keyword).unwrap_or(&Value::Null), &new.get(keyword).unwrap_or(&Value::Null));
        let fine = match keyword.as_str() {
            "properties" => {
                for (name, old) in old.as_object().into_iter().flatten() {
                    found.extend(broken(old, &new[name], &format!("{at}/{name}")));
                }
                true
            }
            "oneOf" | "anyOf" => {
                let one = |n: usize, old: &Value| broken(old, &new[n], &format!("{at}/{n}"));
                found.extend(
                    old.as_array().into_iter().flatten().enumerate().flat_map(|(n, old)| one(n, old)),
                );
                true
            }
            "required" => {
                let names = |of: &Value| -> BTreeSet<String> {
                    serde_json::from_value(of.clone()).unwrap_or_default()
                };
                names(old) == names(new)
            }
            "minimum" | "minLength" | "minItems" => new.is_null() || old.as_i64() >= new.as_i64(),
            "maximum" | "maxLength" | "maxItems" | "maxProperties" => {
                new.is_null() || (!old.is_null() && old.as_i64() <= new.as_i64())
            }
            _ => {
                found.extend(broken(old, new, &at));
                true
            }
        };
        if !fine {
            found.push(format!("{at}: {old} is {new}"));
        }
    }
    found
}

/// Every kind of break is seen, and what only adds is none.
#[test]
fn a_break_is_told_from_an_addition() {
    let old: Value = serde_json::from_str(FROZEN).unwrap();
    let find = |edit: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        edit(&mut new);
        broken(&whole(&old, &old), &whole(&new, &new), "").len()
    };
    let set =
        |at: &'static str, value: Value| move |new: &mut Value| *new.pointer_mut(at).unwrap() = value.clone();
    for (at, value) in [
        ("/$defs/Millis/minimum", json!(2)),
        ("/$defs/Millis/maximum", json!(1000)),
        ("/$defs/Millis/type", json!("string")),
        ("/$defs/CommandPolicy/properties/fallbackEnabled/default", json!(false)),
        ("/$defs/ErrorCode/pattern", json!("^[45][0-9]{2}$")),
        ("/$defs/BreakerMode/oneOf/3/const", json!("Off")),
        ("/$defs/RateLimit/required", json!(["requestsPerSecond", "burst", "scope"])),
        ("/$defs/RateLimit/required", json!(["requestsPerSecond"])),
        ("/$defs/Inbound/properties/methods/maxItems", json!(32)),
        ("/properties", json!({})),
        ("/$defs/RetryPolicy/properties/perTryTimeoutMs", json!({ "$ref": "#/$defs/Millis" })),
    ] {
        assert!(find(&set(at, value.clone())) > 0, "{at} may not become {value}");
    }
    let more = |new: &mut Value| {
        new["$defs"]["RetryPolicy"]["properties"]["backoffMs"] = json!({ "type": "integer" });
    };
    let choice = |new: &mut Value| {
        new["$defs"]["BreakerMode"]["oneOf"].as_array_mut().unwrap().push(json!({ "const": "Sampled" }));
    };
    let wider = set("/$defs/Millis/maximum", json!(7_200_000));
    let words = set("/$defs/Millis/description", json!("Of a second, the thousandth part."));
    assert_eq!([find(&more), find(&choice), find(&wider), find(&words)], [0; 4]);
}
