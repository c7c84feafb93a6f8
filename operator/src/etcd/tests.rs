//! On a real etcd: what is read, followed and refused.

use fusebox_policy::wire::Epoch;
use fusebox_processes::etcd as server;
use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::drift::Drifted;
use crate::group::Sink as _;

use server::eventually;

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
    let alarm = async |client: &mut etcd_client::Client, action| {
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
    let follow = follow_drift(etcd.link.config(), keys.clone(), etcd.allowed.clone(), etcd.intents(), tell);
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
async fn of_ten_thousand_late_writes_etcd_takes_none() {
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
    let attempts = stream::iter(0..10_000).map(|n| {
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

/// It may come later than its answer should have, and then the watch is to tell of it.
#[tokio::test]
async fn a_write_that_failed_is_doubted() {
    let server = server::Etcd::start().await;
    let (etcd, keys) = (adapter(&server), Keys::new(CLUSTER));
    let (of, mine, raw) = (Ident::new("shop", "user"), claims("u"), "service.user.a");
    let late = fence(&etcd).await;
    let write = [StoreOp::Put(keys.policy(&of), "1".into()), StoreOp::Claim(raw.into(), "1".into())];
    let told = || {
        meant(&mine, &write)
            .into_iter()
            .filter(|(key, value)| !etcd.intents().fits(key, value.as_deref().map(str::as_bytes)))
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(etcd.transact(late, &mine, &write).await, Ok(()));
    assert!(told().is_empty(), "what took place is no news");
    let next = Epoch { epoch: 2, holder: "another".into(), ..Epoch::default() };
    assert!(etcd.swap_epoch(Some(late), &next).await.unwrap());
    assert_eq!(etcd.transact(late, &mine, &write).await, Err(TxnError::Fenced));
    assert_eq!(told(), [keys.policy(&of), raw.to_owned(), Keys::raw_claim(raw)]);
}

/// Nobody but the one that keeps asking comes while it is away.
#[tokio::test]
async fn that_an_etcd_is_back_is_noticed_though_nobody_comes() {
    let mut server = server::Etcd::start().await;
    let etcd = Arc::new(adapter(&server));
    fence(&etcd).await;
    let mut back = etcd.back();
    let asking = etcd.clone();
    let asking = tokio::spawn(async move { asking.keep_asking().await });
    server.kill().await;
    for _ in 0..10 {
        etcd.read_epoch().await.unwrap_err();
    }
    server.run().await;
    tokio::time::timeout(std::time::Duration::from_mins(1), back.changed()).await.unwrap().unwrap();
    assert!(etcd.read_epoch().await.is_ok());
    asking.abort();
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

fn claims(uid: &str) -> Claim {
    Claim { cluster: CLUSTER.into(), uid: uid.into() }
}

/// Each of them a resource's, of which some cannot take place.
#[tokio::test]
async fn a_change_that_cannot_be_made_keeps_no_other_from_being_made() {
    let server = server::Etcd::start().await;
    let (mut client, etcd, keys) = (server.client().await, adapter(&server), Keys::new(CLUSTER));
    client.put("service.user.taken", "theirs", None).await.unwrap();
    let fence = fence(&etcd).await;
    let of = |n: usize| Ident::new("shop", format!("user-{n}"));
    let all: Vec<(Claim, Vec<StoreOp>)> = (0..200)
        .map(|n| {
            let raw = if n % 7 == 3 { "service.user.taken".to_owned() } else { format!("service.user.{n}") };
            let ops =
                vec![StoreOp::Put(keys.policy(&of(n)), n.to_string()), StoreOp::Claim(raw, n.to_string())];
            (claims(&n.to_string()), ops)
        })
        .collect();
    let before = committed(&server).await;
    let answers = join_all(all.iter().map(|(claim, ops)| etcd.transact(fence, claim, ops))).await;
    for (n, answer) in answers.iter().enumerate() {
        let view = etcd.read(&of(n), vec![format!("service.user.{n}")]).await.unwrap();
        let raw = &view.raw[&format!("service.user.{n}")];
        if n % 7 == 3 {
            let Err(TxnError::Refused(why)) = answer else { unreachable!("{n}: {answer:?}") };
            assert!(why[0].1.contains("service.user.taken"), "{why:?}");
            assert_eq!((&view.policy, &raw.value), (&None, &None), "half of {n} was made");
        } else {
            assert_eq!(answer, &Ok(()), "{n}");
            assert_eq!((view.policy, raw.claim.clone()), (Some(n.to_string()), Some(claims(&n.to_string()))));
        }
    }
    let found = client.get("service.user.taken", None).await.unwrap();
    assert_eq!(found.kvs()[0].value(), b"theirs");
    println!("etcd: 200 changes, {} transactions", committed(&server).await - before);
}

/// etcd refuses a transaction as a whole without saying whose fault it is.
#[tokio::test]
async fn a_change_that_etcd_refuses_keeps_no_other_from_being_made() {
    let server = server::Etcd::start().await;
    let (etcd, keys) = (adapter(&server), Keys::new(CLUSTER));
    let fence = fence(&etcd).await;
    let of = |n: usize| Ident::new("shop", format!("user-{n}"));
    let all: Vec<Vec<StoreOp>> = (0..20)
        .map(|n| match n {
            // The same key twice, more than etcd takes at once, more bytes than it takes.
            3 => vec![
                StoreOp::Put(keys.policy(&of(n)), "1".into()),
                StoreOp::Put(keys.policy(&of(n)), "2".into()),
            ],
            5 => (0..129).map(|n| StoreOp::Put(format!("key-{n}"), String::new())).collect(),
            7 => vec![StoreOp::Put(keys.policy(&of(n)), "x".repeat(2 << 20))],
            _ => vec![StoreOp::Put(keys.policy(&of(n)), n.to_string())],
        })
        .collect();
    let mine = claims("u");
    let answers = join_all(all.iter().map(|ops| etcd.transact(fence, &mine, ops))).await;
    for (n, answer) in answers.iter().enumerate() {
        let there = etcd.read(&of(n), Vec::new()).await.unwrap().policy;
        if [3, 5, 7].contains(&n) {
            assert!(matches!(answer, Err(TxnError::Unavailable(_))) && there.is_none(), "{n}: {answer:?}");
        } else {
            assert_eq!((answer, there), (&Ok(()), Some(n.to_string())), "{n}");
        }
    }
}

/// A restored etcd counts its revisions anew, and may come to the same one with another's epoch.
#[tokio::test]
async fn an_epoch_at_the_same_revision_that_is_not_ours_is_a_fence() {
    let mut server = server::Etcd::start().await;
    let (etcd, keys) = (adapter(&server), Keys::new(CLUSTER));
    let ours = fence(&etcd).await;
    let write = [StoreOp::Put(keys.policy(&Ident::new("shop", "user")), "1".into())];
    assert_eq!(etcd.transact(ours, &claims("u"), &write).await, Ok(()));
    server.kill().await;
    server.wipe();
    server.run().await;
    let theirs = Epoch { epoch: 1, holder: "another".into(), ..Epoch::default() };
    let mut client = server.client().await;
    client.put(keys.epoch(), serde_json::to_string(&theirs).unwrap(), None).await.unwrap();
    let (found, at) = eventually_ok(async || etcd.read_epoch().await).await.unwrap();
    assert_eq!((found, at), (theirs, ours), "the same revision, as this test needs");
    assert_eq!(etcd.transact(ours, &claims("u"), &write).await, Err(TxnError::Fenced));
    // One of our own holder at the same place is ours, whatever else it says.
    let moved = Epoch { epoch: 1, holder: "me".into(), home: "here".into() };
    client.put(keys.epoch(), serde_json::to_string(&moved).unwrap(), None).await.unwrap();
    let (_, at) = etcd.read_epoch().await.unwrap().unwrap();
    assert_eq!(etcd.transact(at, &claims("u"), &write).await, Ok(()));
}

async fn eventually_ok<T>(ask: impl AsyncFn() -> Result<T, Unavailable>) -> T {
    let mut found = None;
    eventually("it answers again", async || {
        found = ask().await.ok();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// How many transactions that write etcd has committed.
async fn committed(server: &server::Etcd) -> u64 {
    server::counted(&server.metrics().await, "etcd_server_proposals_committed_total")
}

/// What group commit is for: many resources whose first publication comes at once, 32 passes at a time.
#[tokio::test]
async fn two_thousand_first_publications() {
    let mut server = server::Etcd::new().await;
    // As in production: a transaction is on the disk before it is answered.
    server.argument("--unsafe-no-fsync=false");
    server.run().await;
    let (etcd, keys) = (adapter(&server), Keys::new(CLUSTER));
    let (fence, policy) = (fence(&etcd).await, "x".repeat(1000));
    for how in ["each by itself", "grouped"] {
        let of = |n: usize| Ident::new(how.replace(' ', "-"), format!("user-{n}"));
        let (before, start) = (committed(&server).await, Instant::now());
        let passes = stream::iter(0..2000).map(|n| {
            let (etcd, write) = (&etcd, [StoreOp::Put(keys.policy(&of(n)), policy.clone())]);
            async move {
                assert_eq!(etcd.read(&of(n), Vec::new()).await, Ok(StoreView::default()));
                if how == "grouped" {
                    return etcd.transact(fence, &claims("u"), &write).await;
                }
                etcd.commit.sink().send(vec![Change::of(fence, &claims("u"), &write)]).await.remove(0)
            }
        });
        let answers: Vec<_> = passes.buffer_unordered(32).collect().await;
        assert!(answers.iter().all(Result::is_ok));
        let took = Instant::now() - start;
        let transactions = committed(&server).await - before;
        println!("etcd: 2000 first publications, {how}: {transactions} transactions, {took:.2?}");
    }
    assert_eq!(etcd.inventory().await.unwrap().documents.len(), 4000);
}
