//! The published JSON Schemas say what our own readers accept: no more, no less, but for what is listed.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod mutations;
mod policies;
mod stable;

use std::collections::BTreeMap;

use fusebox_policy::policy::{Policy, PolicyBuilder};
use fusebox_policy::wire::{Fleet, MAX_POLICY_BYTES, PolicyDocument, PolicyHash, Refused, Report};
use jsonschema::Validator;
use mutations::{mutants, mutate};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const POLICY: &str = include_str!("../../../docs/reference/policy-v1.schema.json");
const REPORT: &str = include_str!("../../../docs/reference/report-v1.schema.json");
const FLEET: &str = include_str!("../../../docs/reference/fleet-v1.schema.json");
const CONFIG: &str = include_str!("../../../docs/reference/config-v1.schema.json");

const POLICIES: [&str; 2] =
    [include_str!("../../testdata/policy.json"), include_str!("../../testdata/all-fields.json")];
const REPORTS: [&str; 3] = [
    include_str!("../../testdata/report.json"),
    include_str!("../../testdata/report-shadow.json"),
    include_str!("../../testdata/report-outliers.json"),
];

/// What the schema accepts and the reader refuses: rules across fields, and what JSON Schema cannot count.
/// The beginning of the reader's words, after the path.
const STRICTER: [&str; 12] = [
    "is longer than circuitBreaker.rollingWindow", // a timeout
    "circuitBreaker.slowCall.threshold ",          // not shorter than the timeout
    "retry.perTryTimeout ",                        // longer than the timeout
    "errors: ",                                    // one code in both lists
    " is never reached",                           // an earlier method matches all of it
    ": the same match",                            // twice
    "message needs match.grpc.method",             // an answer that does not fit its method
    "message is for a gRPC method",                //
    "contentType and body are for HTTP",           //
    "message must be a JSON object",               // JSON within a string
    "bytes, more than 4096",                       // a schema counts characters
    "invalid type: floating point",                // 1.0 is an integer to JSON Schema
];

/// What the reader accepts and the schema refuses: ways of serde to write the same, which no writer of ours uses.
fn laxer(document: &Value) -> bool {
    const ENUMS: [&str; 6] = ["Instance", "Service", "Enforce", "ForcedOpen", "ForcedClosed", "Disabled"];
    match document {
        // Fields by their order, in place of names.
        Value::Array(of) if of.is_empty() || of.iter().any(|item| !item.is_string() && !item.is_object()) => {
            true
        }
        // A code twice.
        Value::Array(of) => (1..of.len()).any(|n| of[..n].contains(&of[n])) || of.iter().any(laxer),
        Value::Object(of) => {
            let unit = of.len() == 1
                && of.iter().all(|(key, value)| ENUMS.contains(&key.as_str()) && value.is_null());
            unit || of.values().any(laxer)
        }
        _ => false,
    }
}

fn schema(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

/// The changed document with the hash of what is in it, as far as that can be read and the hash itself is not what
/// was changed: something else has to be wrong with it.
fn hashed(mut document: Value, from: &Value) -> Value {
    let parts = ["inbound", "outbound", "shadow"];
    let parts = parts.map(|part| Some((part.to_owned(), document.get(part)?.clone())));
    let policy: Map<_, _> = parts.into_iter().flatten().collect();
    if let Ok(policy) = serde_json::from_value::<Policy>(policy.into())
        && document.get("hash") == from.get("hash")
    {
        document["hash"] = json!(PolicyHash::of(&policy));
    }
    document
}

/// Which exception it took, if it took one; fails where the two disagree without.
fn agree(schema: &Validator, document: &Value) -> Option<&'static str> {
    let (document, read) = (document, PolicyDocument::from_json(document.to_string().as_bytes()));
    match (schema.validate(document), read) {
        (Ok(()), Ok(_)) | (Err(_), Err(_)) => None,
        (Ok(()), Err(Refused::Hash { .. })) => Some("the hash"),
        (Ok(()), Err(refused)) => {
            let why = refused.to_string();
            let found = STRICTER.into_iter().find(|stricter| why.contains(stricter));
            Some(found.unwrap_or_else(|| panic!("the schema accepts and the reader says {why}: {document}")))
        }
        (Err(error), Ok(_)) => {
            assert!(laxer(document), "the reader accepts and the schema says {error}: {document}");
            Some("laxer")
        }
    }
}

#[test]
fn every_golden_document_is_valid() {
    let (policy, report) = (schema(POLICY), schema(REPORT));
    for golden in POLICIES {
        assert_eq!(
            policy.validate(&serde_json::from_str(golden).unwrap()).err().map(|e| e.to_string()),
            None
        );
    }
    for golden in REPORTS {
        assert_eq!(
            report.validate(&serde_json::from_str(golden).unwrap()).err().map(|e| e.to_string()),
            None
        );
    }
}

/// They are for readers of any language.
#[test]
fn no_schema_speaks_of_rust() {
    for text in [POLICY, REPORT, FLEET, CONFIG] {
        for word in ["None", "[`", "::", "uint", "Option"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

/// One change anywhere in a golden document: the schema and the reader judge alike. Every exception of the list
/// is met, so that none stays there for nothing.
#[test]
fn the_schema_and_the_reader_agree_on_every_change_of_a_document() {
    let schema = schema(POLICY);
    let (mut met, mut judged) = (BTreeMap::new(), 0);
    for golden in POLICIES {
        let golden: Value = serde_json::from_str(golden).unwrap();
        for mutant in mutants(&golden) {
            judged += 1;
            *met.entry(agree(&schema, &hashed(mutant, &golden))).or_insert(0) += 1;
        }
    }
    let golden = serde_json::from_str(POLICIES[1]).unwrap();
    for mutant in contradictions(&golden) {
        *met.entry(agree(&schema, &hashed(mutant, &golden))).or_insert(0) += 1;
    }
    println!("{judged} changes: {met:?}");
    assert!(judged > 5000, "{judged}");
    for exception in STRICTER.into_iter().chain(["laxer", "the hash"]) {
        assert!(met.contains_key(&Some(exception)), "nothing needs the exception {exception:?}");
    }
}

/// Documents for the exceptions that no single change leads to.
fn contradictions(golden: &Value) -> Vec<Value> {
    let with = |path: &str, value: Value| {
        let mut document = golden.clone();
        *document.pointer_mut(path).unwrap() = value;
        document
    };
    let answer = "/inbound/methods/0/policy/fallback";
    let code = "/outbound/default/errors/count/0";
    vec![
        with("/hash", json!("0011223344556677")),
        with("/outbound/default/retry/perTryTimeoutMs", json!(301)),
        with(code, json!("404")),
        with("/inbound/methods/0/match/grpc/method", Value::Null),
        with(answer, json!({ "body": { "contentType": "text/plain", "body": "" } })),
        with("/inbound/methods/1/policy/fallback", json!({ "message": { "json": "{}" } })),
        with(answer, json!({ "message": { "json": format!("{{\"a\":\"{}\"}}", "ä".repeat(2500)) } })),
        with("/inbound/methods/0/match", json!({ "http": { "pathPrefix": "/" } })),
        with("/inbound/methods/1/match", golden["inbound"]["methods"][0]["match"].clone()),
    ]
}

/// The size of a document is no matter of a schema.
#[test]
fn a_document_that_is_too_large_is_the_readers_to_refuse() {
    let mut document: Value = serde_json::from_str(POLICIES[0]).unwrap();
    document["uid"] = "x".repeat(MAX_POLICY_BYTES).into();
    assert!(schema(POLICY).is_valid(&document));
    let read = PolicyDocument::from_json(document.to_string().as_bytes());
    assert!(matches!(read, Err(Refused::TooLarge(_))), "{read:?}");
}

/// Reports are judged by what the operator reads: a field that it does not know is of no concern.
#[test]
fn the_schema_and_the_reader_agree_on_every_change_of_a_report() {
    let schema = schema(REPORT);
    let mut judged = 0;
    for golden in REPORTS {
        for mutant in mutants(&serde_json::from_str(golden).unwrap()) {
            judged += 1;
            let read = serde_json::from_value::<Report>(mutant.clone());
            let fine = match (schema.validate(&mutant), &read) {
                (Ok(()), Ok(_)) | (Err(_), Err(_)) => true,
                (Ok(()), Err(error)) => error.to_string().contains("floating point"),
                (Err(_), Ok(read)) => laxer_report(&mutant) || left_out(&mutant, read),
            };
            assert!(fine, "{read:?}: {mutant}");
        }
    }
    assert!(judged > 500, "{judged}");
    let newer = REPORTS[0].replacen('{', "{\"weather\":{},", 1);
    assert!(schema.is_valid(&serde_json::from_str(&newer).unwrap()));
}

/// Fields by their order, in place of names.
fn laxer_report(report: &Value) -> bool {
    let listed = ["breakers", "outliers", "shadow"]
        .into_iter()
        .filter_map(|list| report.get(list)?.as_array())
        .flatten();
    listed.chain(report.get("rejected")).any(Value::is_array)
}

/// A breaker, outlier or shadow that the reader does not know is left out, and the rest is read.
fn left_out(report: &Value, read: &Report) -> bool {
    let listed = |list: &str| report.get(list).and_then(Value::as_array).map_or(0, Vec::len);
    listed("breakers") > read.breakers.len()
        || listed("outliers") > read.outliers.len()
        || listed("shadow") > read.shadow.len()
}

#[test]
fn a_fleet_and_a_config_are_what_the_schemas_say() {
    let (fleet, config) = (schema(FLEET), schema(CONFIG));
    for json in [
        json!({ "ready": 0 }),
        json!({ "ready": u32::MAX, "zones": 2 }),
        json!({}),
        json!({ "ready": -1 }),
        json!({ "ready": u64::from(u32::MAX) + 1 }),
        json!({ "ready": "1" }),
        json!(1),
    ] {
        assert_eq!(fleet.is_valid(&json), serde_json::from_value::<Fleet>(json.clone()).is_ok(), "{json}");
    }
    assert!(config.is_valid(&json!({ "service": { "user": { "timeout": 1000 } } })));
    assert!(!config.is_valid(&json!([1])) && !config.is_valid(&Value::Null));
}

proptest! {
    /// What a person declares in code is valid once published, and so is any change of it that is read.
    #[test]
    fn what_the_builder_makes_is_valid(
        policy in policies::said().prop_map(|said| said.built(PolicyBuilder::new()).build()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..3),
    ) {
        prop_assume!(policy.is_ok());
        let document = serde_json::to_value(PolicyDocument::new("uid", policy.unwrap())).unwrap();
        let schema = schema(POLICY);
        prop_assert_eq!(agree(&schema, &document), None);
        prop_assert!(schema.is_valid(&document), "{}", document);
        let changed = changes.iter().fold(document.clone(), |document, (place, change)| mutate(&document, *place, *change));
        agree(&schema, &hashed(changed, &document));
    }
}

#[cfg(feature = "crd")]
proptest! {
    /// What a person declares in a resource is valid once published.
    #[test]
    fn what_a_resource_says_is_valid(said in policies::said()) {
        let spec = serde_json::from_value(said.spec()).unwrap();
        let policy = fusebox_policy::merge::policy(&spec);
        prop_assume!(policy.is_ok());
        let document = serde_json::to_value(PolicyDocument::new("uid", policy.unwrap())).unwrap();
        prop_assert!(schema(POLICY).is_valid(&document), "{}", document);
    }
}
