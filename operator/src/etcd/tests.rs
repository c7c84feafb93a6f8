//! What a transaction compares and writes; then on a real etcd what is read and followed.

use fusebox_policy::wire::Epoch;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::drift::Drifted;

#[path = "../../../resilience/tests/common/etcd.rs"]
mod server;

use server::eventually;

#[test]
fn every_write_is_fenced_and_a_raw_key_is_guarded_by_its_claim() {
    let claim = Claim { cluster: "demo".into(), uid: "u".into() };
    let dead = Claim { cluster: "demo".into(), uid: "gone".into() };
    let ops = [
        StoreOp::Put("p".into(), "1".into()),
        StoreOp::Delete("d".into()),
        StoreOp::Claim("new".into(), "1".into()),
        StoreOp::PutRaw("own".into(), "2".into()),
        StoreOp::Release("old".into()),
        StoreOp::DeleteAt("unchanged".into(), Fence(5)),
        StoreOp::TakeOver("dead".into(), "3".into(), dead.clone()),
        StoreOp::Reap("left".into(), dead),
    ];
    let (compares, writes) = txn("/epoch", Fence(7), &claim, &ops);
    let mine = r#"{"cluster":"demo","uid":"u"}"#;
    let wanted = [
        Compare::mod_revision("/epoch", CompareOp::Equal, 7),
        Compare::create_revision("new", CompareOp::Equal, 0),
        Compare::create_revision("/fusebox/v1/claims/raw/new", CompareOp::Equal, 0),
        Compare::value("/fusebox/v1/claims/raw/own", CompareOp::Equal, mine),
        Compare::value("/fusebox/v1/claims/raw/old", CompareOp::Equal, mine),
        Compare::mod_revision("unchanged", CompareOp::Equal, 5),
        Compare::value("/fusebox/v1/claims/raw/dead", CompareOp::Equal, r#"{"cluster":"demo","uid":"gone"}"#),
        Compare::value("/fusebox/v1/claims/raw/left", CompareOp::Equal, r#"{"cluster":"demo","uid":"gone"}"#),
    ];
    assert_eq!(format!("{compares:?}"), format!("{wanted:?}"));
    assert_eq!(writes.len(), ops.iter().map(StoreOp::weight).sum::<usize>());
}

const CLUSTER: &str = "demo";

fn adapter(etcd: &server::Etcd) -> Etcd {
    let allowed = vec!["service.user.".to_owned(), "service.user.deep.".to_owned()];
    Etcd::new(EtcdConfig::new([etcd.url()]), CLUSTER, allowed, Reports::default())
}

async fn fence(etcd: &Etcd) -> Fence {
    let epoch = Epoch { epoch: 1, holder: "me".into(), ..Epoch::default() };
    assert_eq!(etcd.swap_epoch(None, &epoch).await, Ok(true));
    etcd.read_epoch().await.unwrap().unwrap().1
}

#[tokio::test]
async fn all_that_etcd_holds_is_read_page_by_page() {
    let server = server::Etcd::start().await;
    let (mut client, etcd, keys) = (server.client().await, adapter(&server), Keys::new(CLUSTER));
    let of = |n: usize| Ident::new("shop", format!("user-{n:04}"));
    for n in 0..1203 {
        client.put(keys.policy(&of(n)), "{}", None).await.unwrap();
    }
    let ours = r#"{"cluster":"demo","uid":"dead"}"#;
    for (key, value) in [
        (keys.raw(&of(0)).as_str(), r#"["service.user.a"]"#),
        (keys.fleet(&of(0)).as_str(), "{}"),
        (keys.config(&of(0)).as_str(), "{}"),
        (keys.report(&of(0), "uid").as_str(), "{}"),
        ("/fusebox/v1/demo-2/policy/shop/user", "{}"),
        ("/fusebox/v1/demo/policy/shop", "not a resource's"),
        ("/fusebox/v1/claims/raw/service.user.a", ours),
        ("/fusebox/v1/claims/raw/service.user.deep.b", r#"{"cluster":"other","uid":"1"}"#),
        ("/fusebox/v1/claims/raw/service.user.c", "?"),
        ("/fusebox/v1/claims/raw/service.other", ours),
        ("service.user.a", "1"),
        ("service.user.deep.b", "1"),
    ] {
        client.put(key, value, None).await.unwrap();
    }
    let found = etcd.inventory().await.unwrap();
    assert_eq!(found.documents.len(), 1203 + 3);
    let named: std::collections::BTreeSet<&Ident> = found.documents.iter().map(|d| &d.of).collect();
    assert_eq!(named.len(), 1203);
    let list = found.documents.iter().find(|document| document.key == keys.raw(&of(0))).unwrap();
    assert_eq!(list.holds, ["service.user.a"]);
    let claim = |cluster: &str, uid: &str| Claim { cluster: cluster.into(), uid: uid.into() };
    let wanted = [
        ("service.user.a".to_owned(), claim("demo", "dead")),
        ("service.user.deep.b".to_owned(), claim("other", "1")),
    ];
    assert_eq!(found.claims, wanted);

    let fence = fence(&etcd).await;
    let dead = claim("demo", "dead");
    let at = |n: usize| found.documents.iter().find(|d| d.key == keys.policy(&of(n))).unwrap().at;
    let delete = |n: usize| [StoreOp::DeleteAt(keys.policy(&of(n)), at(n))];
    assert_eq!(etcd.transact(fence, &dead, &delete(0)).await, Ok(()));
    client.put(keys.policy(&of(1)), "{}", None).await.unwrap();
    let done = etcd.transact(fence, &dead, &delete(1)).await;
    assert!(matches!(done, Err(TxnError::Refused(_))), "written meanwhile: {done:?}");
    assert_eq!(etcd.transact(fence, &dead, &[StoreOp::Release("service.user.a".into())]).await, Ok(()));
    let done = etcd.transact(fence, &dead, &[StoreOp::Release("service.user.deep.b".into())]).await;
    assert!(matches!(done, Err(TxnError::Refused(_))), "another cluster's: {done:?}");
    let left = etcd.inventory().await.unwrap();
    assert_eq!((left.documents.len(), left.claims.len()), (1203 + 2, 1));
}

#[tokio::test]
async fn a_full_etcd_is_read_and_the_refusal_of_a_write_says_what_to_do() {
    let server = server::Etcd::start().await;
    let (mut client, etcd, keys) = (server.client().await, adapter(&server), Keys::new(CLUSTER));
    let (fence, user) = (fence(&etcd).await, Ident::new("shop", "user"));
    let mine = Claim { cluster: CLUSTER.into(), uid: "u".into() };
    let put = |value: &str| [StoreOp::Put(keys.policy(&user), value.to_owned())];
    assert_eq!(etcd.transact(fence, &mine, &put("1")).await, Ok(()));
    let member = client.status().await.unwrap().header().unwrap().member_id();
    let alarm = async |client: &mut Client, action| {
        let mut of = etcd_client::AlarmOptions::new();
        of.with_member(member);
        client.alarm(action, etcd_client::AlarmType::Nospace, Some(of)).await.unwrap();
    };
    alarm(&mut client, etcd_client::AlarmAction::Activate).await;
    let refused = etcd.transact(fence, &mine, &put("2")).await.unwrap_err().to_string();
    for word in ["out of space", "etcdctl compact", "etcdctl defrag", "etcdctl alarm disarm"] {
        assert!(refused.contains(word), "{refused}");
    }
    assert!(!refused.contains("etcdserver"), "{refused}");
    let read = etcd.read(&user, Vec::new()).await.unwrap();
    assert_eq!(read.policy.as_deref(), Some("1"), "what it holds is read");
    let delete = [StoreOp::Delete(keys.policy(&user))];
    assert_eq!(etcd.transact(fence, &mine, &delete).await, Ok(()), "and may go");
    alarm(&mut client, etcd_client::AlarmAction::Deactivate).await;
    assert_eq!(etcd.transact(fence, &mine, &put("2")).await, Ok(()));
}

#[tokio::test]
async fn what_others_change_is_told_and_what_we_write_is_not() {
    let server = server::Etcd::start().await;
    let (mut client, etcd, keys) = (server.client().await, adapter(&server), Keys::new(CLUSTER));
    let (tell, mut told) = mpsc::unbounded_channel();
    let follow = follow_drift(etcd.config.clone(), keys.clone(), etcd.allowed.clone(), etcd.intents(), tell);
    tokio::spawn(follow);
    let user = Ident::new("shop", "user");
    // Foreign keys, one in each range that is followed, and what is told of them.
    let strange = |who: &str| {
        let of = |kind: &str| Ident::new("shop", format!("{who}-{kind}"));
        let raw = |kind: &str| format!("service.user.{who}-{kind}");
        [
            (keys.policy(&of("policy")), Drifted::Of(of("policy"))),
            (keys.config(&of("config")), Drifted::Of(of("config"))),
            (keys.fleet(&of("fleet")), Drifted::Of(of("fleet"))),
            (keys.raw(&of("raw")), Drifted::Of(of("raw"))),
            (raw("key"), Drifted::Raw(raw("key"))),
            (Keys::raw_claim(&raw("claim")), Drifted::Raw(raw("claim"))),
        ]
    };
    for (key, wanted) in strange("first") {
        eventually("it is followed", async || {
            client.put(key.as_str(), "x", None).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            std::iter::from_fn(|| told.try_recv().ok()).any(|told| told == wanted)
        })
        .await;
    }
    let fence = fence(&etcd).await;
    let mine = Claim { cluster: CLUSTER.into(), uid: "u".into() };
    let raw = || "service.user.timeout".to_owned();
    let mut writes = 0;
    for n in 0..20 {
        for ops in [
            vec![
                StoreOp::Put(keys.policy(&user), format!("{n}")),
                StoreOp::Put(keys.config(&user), format!("{n}")),
                StoreOp::Claim(raw(), format!("{n}")),
                StoreOp::Put(keys.raw(&user), format!("{n}")),
            ],
            vec![StoreOp::PutRaw(raw(), format!("{n}!")), StoreOp::Put(keys.fleet(&user), format!("{n}"))],
            vec![
                StoreOp::Release(raw()),
                StoreOp::Delete(keys.policy(&user)),
                StoreOp::Delete(keys.config(&user)),
                StoreOp::Delete(keys.fleet(&user)),
                StoreOp::Delete(keys.raw(&user)),
            ],
        ] {
            assert_eq!(etcd.transact(fence, &mine, &ops).await, Ok(()));
            writes += 1;
        }
    }
    // What is told of a range is told in order: after our writes come these.
    for (key, _) in strange("last") {
        client.put(key, "x", None).await.unwrap();
    }
    let mut missing = strange("last").map(|(_, wanted)| wanted).to_vec();
    let (mut passes, first) = (0, strange("first").map(|(_, told)| told));
    while !missing.is_empty() {
        let one = told.recv().await.unwrap();
        passes += usize::from(!missing.contains(&one) && !first.contains(&one));
        missing.retain(|wanted| *wanted != one);
    }
    assert_eq!((passes, writes), (0, 60), "no pass for a write of our own");
    for key in [keys.policy(&user), "service.user.timeout".to_owned()] {
        client.put(key, "foreign", None).await.unwrap();
    }
    let mut foreign = [told.recv().await.unwrap(), told.recv().await.unwrap()];
    foreign.sort();
    assert_eq!(foreign, [Drifted::Of(user), Drifted::Raw(raw())]);
}

/// A writer that another deposed: etcd itself refuses whatever it still sends.
#[tokio::test]
async fn of_five_thousand_late_writes_etcd_takes_none() {
    let server = server::Etcd::start().await;
    let (etcd, keys) = (adapter(&server), Keys::new(CLUSTER));
    let (of, mine) = (Ident::new("shop", "user"), Claim { cluster: CLUSTER.into(), uid: "u".into() });
    let late = fence(&etcd).await;
    let first =
        [StoreOp::Put(keys.policy(&of), "1".into()), StoreOp::Claim("service.user.a".into(), "1".into())];
    assert_eq!(etcd.transact(late, &mine, &first).await, Ok(()));
    let next = Epoch { epoch: 2, holder: "another".into(), ..Epoch::default() };
    assert!(etcd.swap_epoch(Some(late), &next).await.unwrap());
    let wanted = || vec!["service.user.a".to_owned()];
    let before = etcd.read(&of, wanted()).await.unwrap();
    let write = |n: usize| match n % 4 {
        0 => StoreOp::Put(keys.policy(&of), n.to_string()),
        1 => StoreOp::Delete(keys.policy(&of)),
        2 => StoreOp::PutRaw("service.user.a".into(), n.to_string()),
        _ => StoreOp::Release("service.user.a".into()),
    };
    let attempts = stream::iter(0..5000).map(|n| {
        let (etcd, mine, ops) = (&etcd, &mine, [write(n)]);
        async move { etcd.transact(late, mine, &ops).await }
    });
    let answers: Vec<_> = attempts.buffer_unordered(16).collect().await;
    assert!(answers.iter().all(|answer| *answer == Err(TxnError::Fenced)));
    assert_eq!(etcd.read(&of, wanted()).await.unwrap(), before);
    let theirs = etcd.read_epoch().await.unwrap().unwrap().1;
    assert_eq!(etcd.transact(theirs, &mine, &[write(0)]).await, Ok(()), "the other one's is taken");
    println!("etcd: {} late writes, 0 taken", answers.len());
}

/// In a condition, for a person.
#[tokio::test]
async fn an_etcd_that_is_gone_is_told_in_words() {
    let mut server = server::Etcd::start().await;
    let etcd = adapter(&server);
    fence(&etcd).await;
    server.kill().await;
    let error = etcd.read_epoch().await.unwrap_err().0;
    // What the connection was doing when it broke is up to chance.
    assert!(error.starts_with(&format!("etcd at {}: The ", server.url())), "{error}");
    assert!(!error.contains("source:") && !error.contains('{'), "{error}");
}
