//! On a real Consul: a resource's part of a node.

use std::collections::BTreeMap;

use fusebox_policy::keys::Ident;
use tokio::time::Instant;

use super::*;
use crate::model::Entry;
use fusebox_processes::consul as server;

const CLUSTER: &str = "demo";
const NODE: &str = "fusebox-demo-1";

fn uid(n: usize) -> String {
    format!("5f0d0c1e-0000-4000-8000-{n:012}")
}

fn owner(n: usize) -> Owner {
    Owner { ident: Ident::new("shop", format!("user-{n}")), uid: uid(n) }
}

/// Of the n-th resource; `of` is the UID that it carries.
fn entry(n: usize, of: &str, passing: bool) -> Entry {
    let mut meta = BTreeMap::from([(mark::INSTANCE.to_owned(), format!("pod-{n}"))]);
    meta.insert(mark::OWNER.to_owned(), of.to_owned());
    meta.insert(mark::CLUSTER.to_owned(), CLUSTER.to_owned());
    meta.insert(mark::RESOURCE.to_owned(), owner(n).ident.to_string());
    Entry {
        id: format!("{CLUSTER}-{of}-pod-{n}-80"),
        name: format!("user-{n}.service"),
        address: "10.0.0.1".into(),
        port: 80,
        tags: vec!["v1".into()],
        meta,
        passing: Some(passing),
    }
}

#[tokio::test]
async fn a_part_of_a_node_is_what_a_look_at_all_of_it_says_of_a_resource() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = server::Consul::start(&[]).await;
    let consul = || {
        let config = ConsulConfig { address: server.url(), ..ConsulConfig::default() };
        Consul::new(Http::new(&config).unwrap(), CLUSTER)
    };
    let writer = consul();
    let epoch = Epoch { epoch: 1, holder: "me".into(), ..Epoch::default() };
    assert_eq!(writer.swap_epoch(None, &epoch).await, Ok(true));
    let fence = writer.read_epoch().await.unwrap().unwrap().1;
    let mut entries: Vec<Entry> = (0..200).map(|n| entry(n, &uid(n), n % 3 > 0)).collect();
    // Of one that had the first one's name before, and somebody's with the id of the second.
    entries.push(entry(0, "gone", true));
    let taken =
        Entry { id: format!("{CLUSTER}-{}-pod-9-80", uid(1)), meta: BTreeMap::new(), ..entry(1, "", true) };
    entries.push(taken);
    assert_eq!(writer.transact(fence, NODE, &[CatalogOp::EnsureNode]).await, Ok(()));
    for entries in entries.chunks(25) {
        let ops: Vec<CatalogOp> = entries.iter().cloned().map(CatalogOp::Register).collect();
        assert_eq!(writer.transact(fence, NODE, &ops).await, Ok(()));
    }
    let reader = consul();
    let first = reader.part(NODE, &owner(7)).await.unwrap();
    assert_eq!((first.entries.len(), first.others), (202, 0), "what was never counted is read whole");
    let whole = reader.node(NODE).await.unwrap();
    for (n, count) in [(0, 2), (1, 2), (2, 1), (199, 1), (500, 0)] {
        let part = reader.part(NODE, &owner(n)).await.unwrap();
        let wanted: BTreeMap<String, Entry> = whole
            .entries
            .iter()
            .filter(|(id, entry)| {
                id.contains(&uid(n)) || entry.meta.get(mark::RESOURCE) == Some(&owner(n).ident.to_string())
            })
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        assert_eq!(part.entries.len(), count, "{n}");
        for (id, mut entry) in wanted {
            let found = &part.entries[&id];
            // Of another one's check with no UID of this one nobody asks.
            entry.passing = if id.contains(&uid(n)) { entry.passing } else { found.passing };
            assert_eq!(*found, entry, "{n}");
        }
        let ours = part.entries.values().filter(|entry| entry.is_in(CLUSTER)).count();
        assert_eq!((part.exists, part.foreign, part.others), (true, false, 201 - ours), "{n}");
    }
    let none = reader.part("fusebox-demo-2", &owner(0)).await.unwrap();
    assert_eq!(none, NodeView::default());
    for (what, whole) in [("whole", true), ("part", false)] {
        let start = Instant::now();
        for n in 0..50 {
            let read = if whole { reader.node(NODE).await } else { reader.part(NODE, &owner(n)).await };
            read.unwrap();
        }
        println!("consul: a {what} of a node with 202 entries: {:.2?} a read", (Instant::now() - start) / 50);
    }
}
