//! Every way in which a document may be wrong in one place.

use proptest::sample::Index;
use serde_json::{Value, json};

/// The document with one value changed, removed or added, for every place in it.
pub fn mutants(document: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for place in places(document) {
        found.extend(changes(document, &place));
    }
    found
}

/// One of them.
pub fn mutate(document: &Value, place: Index, change: Index) -> Value {
    let places = places(document);
    let changes = changes(document, &places[place.index(places.len())]);
    changes.get(change.index(changes.len().max(1))).cloned().unwrap_or_else(|| document.clone())
}

/// The JSON pointer of every value.
fn places(document: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(of) => {
                of.iter().for_each(|(key, value)| walk(value, &format!("{at}/{key}"), found));
            }
            Value::Array(of) => {
                of.iter().enumerate().for_each(|(n, value)| walk(value, &format!("{at}/{n}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found
}

/// Values of every type, and those beside every bound that a number has.
fn values() -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(""),
        json!("x"),
        json!("GET"),
        json!("Service"),
        json!("Disabled"),
        json!("404"),
        json!("OK"),
        json!("x".repeat(129)),
        json!("x".repeat(4097)),
        json!("ä\n"),
        json!([]),
        json!(["404", "404"]),
        json!([1]),
        json!([5, 1]),
        json!({}),
        json!({ "x": 1 }),
        json!({ "Service": null }),
        json!(-1),
        json!(1.5),
        json!(1.0),
        json!(u64::MAX),
        json!("2026-11-24T21:00:00Z"),
        json!("2026-13-24T21:00:00Z"),
    ];
    for bound in [0, 1, 2, 10, 100, 1000, 1_000_000, 3_600_000, 1_000_000_000_u64] {
        values.extend([bound, bound + 1, bound.saturating_sub(1)].map(|number| json!(number)));
    }
    values
}

fn changes(document: &Value, place: &str) -> Vec<Value> {
    let set = |value: Value| {
        let mut changed = document.clone();
        changed.pointer_mut(place).map(|there| *there = value)?;
        Some(changed)
    };
    let mut found: Vec<Value> = values().into_iter().filter_map(set).collect();
    let there = document.pointer(place);
    match there {
        Some(Value::Object(of)) => {
            for field in of.keys() {
                let mut less = of.clone();
                less.remove(field);
                found.extend(set(less.into()));
            }
            let mut more = of.clone();
            more.insert("somethingNew".to_owned(), json!(1));
            found.extend(set(more.into()));
            // More than any map may have.
            if let Some(one) = of.values().next() {
                let many = (0..65).map(|n| (format!("c{n}"), one.clone()));
                found.extend(set(Value::Object(many.collect())));
            }
        }
        Some(Value::Array(of)) => {
            let more = |item: Value| Value::from([of.clone(), vec![item]].concat());
            found.extend(
                [json!(1), json!({}), json!("500")].map(|item| set(more(item))).into_iter().flatten(),
            );
            found.extend(of.first().map(|first| set(more(first.clone()))).into_iter().flatten());
            // More than any list may have.
            let many =
                |count: u32| (400..400 + count).map(|code| json!(code.to_string())).collect::<Vec<_>>();
            found.extend([32, 33].into_iter().filter_map(|count| set(many(count).into())));
            let methods =
                |n: u32| json!({ "match": { "http": { "pathPrefix": format!("/m{n}") } }, "policy": {} });
            found.extend([64, 65].into_iter().filter_map(|count| set((0..count).map(methods).collect())));
        }
        _ => {}
    }
    found
}
