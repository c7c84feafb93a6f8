use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

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
    let change = Change::of(Fence(7), &claim, &ops);
    let mine = r#"{"cluster":"demo","uid":"u"}"#;
    let theirs = r#"{"cluster":"demo","uid":"gone"}"#;
    let raw = "/fusebox/v1/claims/raw";
    let wanted = [
        Compare::mod_revision("/epoch", CompareOp::Equal, 7),
        Compare::value("/epoch", CompareOp::Equal, "me"),
        Compare::create_revision("new", CompareOp::Equal, 0),
        Compare::create_revision(format!("{raw}/new"), CompareOp::Equal, 0),
        Compare::value(format!("{raw}/own"), CompareOp::Equal, mine),
        Compare::value(format!("{raw}/old"), CompareOp::Equal, mine),
        Compare::mod_revision("unchanged", CompareOp::Equal, 5),
        Compare::value(format!("{raw}/dead"), CompareOp::Equal, theirs),
        Compare::value(format!("{raw}/left"), CompareOp::Equal, theirs),
    ];
    assert_eq!(format!("{:?}", compares("/epoch", Some("me"), &[&change])), format!("{wanted:?}"));
    let wanted = [
        ("p", Some("1")),
        ("d", None),
        ("new", Some("1")),
        ("/fusebox/v1/claims/raw/new", Some(mine)),
        ("own", Some("2")),
        ("old", None),
        ("/fusebox/v1/claims/raw/old", None),
        ("unchanged", None),
        ("dead", Some("3")),
        ("/fusebox/v1/claims/raw/dead", Some(mine)),
        ("left", None),
        ("/fusebox/v1/claims/raw/left", None),
    ];
    let found: Vec<(&str, Option<&str>)> =
        change.writes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    assert_eq!(found, wanted);
    assert_eq!(writes(&[&change]).len(), ops.iter().map(StoreOp::weight).sum::<usize>());
    assert_eq!(reads("/epoch", &[&change]).len(), 1 + change.guards.len());
}

fn a_change() -> impl Strategy<Value = Change> {
    let key = || (0..400_u16).prop_map(|n| format!("key-{n}"));
    let value = prop_oneof![
        40 => "[a-z]{0,20}".prop_map(String::from),
        1 => (0..MAX_BYTES / 2).prop_map(|n| "x".repeat(n)),
    ];
    let is = prop_oneof![
        Just(Is::Absent),
        (0..9_u64).prop_map(|n| Is::At(Fence(n))),
        "[a-z]{0,9}".prop_map(Is::Valued)
    ];
    let fence = prop_oneof![9 => Just(Fence(7)), 1 => Just(Fence(8))];
    // Few or many: one alone may be more than fits.
    let many = || prop_oneof![6 => 0..6_usize, 1 => 60..130_usize];
    let guards = many().prop_flat_map(move |n| proptest::collection::btree_map(key(), is.clone(), 0..=n));
    let writes = many().prop_flat_map(move |n| {
        proptest::collection::btree_map(key(), proptest::option::of(value.clone()), 1..=n.max(1))
    });
    (fence, guards, writes).prop_map(|(fence, guards, writes)| Change {
        fence,
        guards: guards.into_iter().collect(),
        writes: writes.into_iter().collect(),
    })
}

/// Why these do not go together, if they do not. Written apart from what it judges.
fn too_much(all: &[Change]) -> Option<&'static str> {
    let guards: usize = all.iter().map(|change| change.guards.len()).sum();
    let writes: usize = all.iter().map(|change| change.writes.len()).sum();
    let size = |change: &Change| {
        let text = |is: &Is| if let Is::Valued(value) = is { value.len() } else { 0 };
        let guards: usize = change.guards.iter().map(|(key, is)| key.len() + text(is)).sum();
        let value = |value: &Option<String>| value.as_deref().unwrap_or_default().len();
        guards + change.writes.iter().map(|(key, to)| key.len() + value(to)).sum::<usize>()
    };
    let mut whose: BTreeMap<&str, usize> = BTreeMap::new();
    let mut twice = false;
    for (at, change) in all.iter().enumerate() {
        for key in change.guards.iter().map(|(key, _)| key).chain(change.writes.iter().map(|(key, _)| key)) {
            twice |= *whose.entry(key).or_insert(at) != at;
        }
    }
    match () {
        () if all.iter().any(|change| change.fence != all[0].fence) => Some("two fences"),
        () if guards + 2 > 120 => Some("comparisons"),
        () if writes > 120 => Some("writes"),
        () if all.iter().map(size).sum::<usize>() > 1024 * 1024 => Some("bytes"),
        () if twice => Some("a key twice"),
        () => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_change_goes_once_in_order_and_a_transaction_is_within_the_limits_and_no_smaller_than_it_must_be(
        all in proptest::collection::vec(a_change(), 0..40)
    ) {
        let (mut rest, mut batches) = (all.as_slice(), 0);
        while !rest.is_empty() {
            let count = together(rest.iter());
            prop_assert!((1..=rest.len()).contains(&count), "{count} of {}", rest.len());
            let (batch, after) = rest.split_at(count);
            if count > 1 {
                prop_assert_eq!(too_much(batch), None);
            }
            if !after.is_empty() {
                prop_assert!(too_much(&rest[..=count]).is_some(), "one more would have gone with them");
            }
            (rest, batches) = (after, batches + 1);
        }
        prop_assert!(batches <= all.len());
        prop_assert_eq!(together(std::iter::empty()), 0);
    }

    /// What is read of a failed transaction says which comparisons failed, as etcd itself compares.
    #[test]
    fn who_is_told_of_a_failed_comparison_is_whose_it_was(
        changes in proptest::collection::vec(a_change(), 1..5),
        stands in 7..9_u64,
        is_mine in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let changes: Vec<Change> = changes.into_iter().map(|change| Change { fence: Fence(7), ..change }).collect();
        let refs: Vec<&Change> = changes.iter().collect();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut found = vec![Some((if is_mine { "me" } else { "other" }.to_owned(), Fence(stands)))];
        let mut wanted: Vec<Vec<String>> = Vec::new();
        for change in &changes {
            let mut wrong = Vec::new();
            for (key, is) in &change.guards {
                let holds = random.bool();
                found.push(match (is, holds) {
                    (Is::Absent, true) => None,
                    (Is::Absent, false) => Some((String::new(), Fence(3))),
                    (Is::At(at), true) => Some((String::new(), *at)),
                    (Is::At(at), false) => random.bool().then(|| (String::new(), Fence(at.0 + 1))),
                    (Is::Valued(value), true) => Some((value.clone(), Fence(3))),
                    (Is::Valued(value), false) => random.bool().then(|| (format!("{value}!"), Fence(3))),
                });
                if !holds {
                    wrong.push(key.clone());
                }
            }
            wanted.push(wrong);
        }
        let told = why(Some("me"), &refs, found);
        let wanted = if is_mine && stands == 7 { Why::Guarded(wanted) } else { Why::Fenced };
        prop_assert_eq!(told, wanted);
        prop_assert_eq!(why(None, &refs, vec![]), Why::Fenced, "an epoch key that is gone");
    }
}
