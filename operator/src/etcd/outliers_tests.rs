//! What callers say, and what is told of it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NAME: &str = "user.service";

fn caller(of: &str, instance: &str) -> Caller {
    (Ident::new("web", of), instance.to_owned())
}

fn ejected(name: &str, endpoint: &str, reason: &str) -> OutlierReport {
    OutlierReport {
        service: name.into(),
        command: "get_user".into(),
        endpoint: endpoint.into(),
        since: Timestamp::MAX,
        reason: reason.into(),
    }
}

fn bad(endpoint: usize) -> OutlierReport {
    ejected(NAME, &format!("10.0.0.{endpoint}:50051"), "5 failures in a row")
}

/// The index, and the time of a test.
struct Index {
    of: Outliers,
    start: Instant,
    second: u64,
}

impl Index {
    fn new() -> Self {
        Self { of: Outliers::default(), start: Instant::now(), second: 0 }
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_secs(self.second)
    }

    fn say(&mut self, caller: &Caller, says: Vec<OutlierReport>) -> Vec<String> {
        let now = Timestamp::from_second(i64::try_from(self.second).unwrap()).unwrap();
        self.of.say(caller.clone(), says, now, self.at())
    }

    /// What is told of as each second passes.
    fn pass(&mut self, seconds: u64) -> Vec<(u64, String)> {
        let mut told = Vec::new();
        for _ in 0..seconds {
            self.second += 1;
            told.extend(self.of.due(self.at()).into_iter().map(|name| (self.second, name)));
        }
        told
    }

    /// The endpoints that are told of, by their last number, and how many services and instances each has ejected.
    fn told(&self) -> Vec<(String, usize, usize)> {
        let all = self.of.of(NAME);
        all.iter().map(|(at, one)| (at.to_string(), one.services, one.instances)).collect()
    }

    fn is_empty(&self) -> bool {
        self.of.said.is_empty() && self.of.named.is_empty() && self.of.ended.is_empty()
    }
}

#[test]
fn what_callers_say_is_found_under_the_name_they_called() {
    let mut index = Index::new();
    let (a, b, other) = (caller("cart", "a"), caller("cart", "b"), caller("billing", "a"));
    assert_eq!(index.say(&a, vec![bad(1)]), [NAME]);
    let first = index.of.of("USER.service");
    let one = &first[&"10.0.0.1:50051".parse().unwrap()];
    assert_eq!((one.reason.as_str(), one.since), ("5 failures in a row", Timestamp::UNIX_EPOCH));
    assert_eq!(one.callers, [Ident::new("web", "cart")]);
    assert!(index.of.of("other.service").is_empty());

    assert!(index.say(&a, vec![bad(1)]).is_empty(), "no news");
    index.second = 1;
    assert!(index.say(&b, vec![bad(1), bad(2)]).is_empty(), "not at once again");
    index.say(&other, vec![ejected("User.Service", "10.0.0.1:50051", "a probe failed")]);
    assert_eq!(index.told(), [("10.0.0.1:50051".into(), 1, 1)]);
    assert_eq!(index.pass(60), [(10, NAME.to_owned())]);
    assert_eq!(index.told(), [("10.0.0.1:50051".into(), 2, 3), ("10.0.0.2:50051".into(), 1, 1)]);
    let one = index.of.of(NAME)[&"10.0.0.1:50051".parse().unwrap()].clone();
    assert_eq!((one.reason.as_str(), one.since), ("5 failures in a row", Timestamp::UNIX_EPOCH), "the first");
    assert_eq!(one.callers, [Ident::new("web", "billing"), Ident::new("web", "cart")]);
}

#[test]
fn one_that_goes_and_comes_all_the_time_changes_nothing_until_it_ends() {
    let (mut index, cart) = (Index::new(), caller("cart", "a"));
    assert_eq!(index.say(&cart, vec![bad(1)]), [NAME]);
    for _ in 0..100 {
        assert!(index.pass(3).is_empty() && index.say(&cart, Vec::new()).is_empty());
        assert!(index.pass(5).is_empty() && index.say(&cart, vec![bad(1)]).is_empty());
    }
    assert!(index.say(&cart, Vec::new()).is_empty());
    let end = index.second;
    assert_eq!(index.pass(120), [(end + LINGER.as_secs(), NAME.to_owned())]);
    assert!(index.told().is_empty() && index.is_empty(), "{:?}", index.of);
}

#[test]
fn a_crowd_is_told_of_every_ten_seconds_and_its_last_is_told_of() {
    let mut index = Index::new();
    let mut told = Vec::new();
    for n in 0..100 {
        told.extend(index.say(&caller("cart", &n.to_string()), vec![bad(1)]));
        told.extend(index.pass(1).into_iter().map(|(_, name)| name));
    }
    told.extend(index.pass(60).into_iter().map(|(_, name)| name));
    assert!((10..=11).contains(&told.len()), "{}", told.len());
    assert_eq!(index.told(), [("10.0.0.1:50051".into(), 1, 100)]);
}

#[test]
fn who_is_silent_is_forgotten_with_the_others() {
    let mut index = Index::new();
    let (here, gone) = (caller("cart", "a"), caller("cart", "b"));
    index.say(&here, vec![bad(1)]);
    index.say(&gone, vec![bad(2)]);
    index.pass(20);
    index.of.only(&[here].into(), Timestamp::UNIX_EPOCH, index.at());
    index.pass(LINGER.as_secs() - 1);
    assert_eq!(index.told().len(), 2);
    index.pass(1);
    assert_eq!(index.told(), [("10.0.0.1:50051".into(), 1, 1)]);
}

#[test]
fn nonsense_is_nothing_and_too_much_is_cut() {
    let mut index = Index::new();
    let long = "x".repeat(100_000);
    let nonsense = [
        ejected(NAME, "user-1:50051", "5 failures in a row"),
        ejected(NAME, &long, "5 failures in a row"),
        ejected("", "10.0.0.1:1", "5 failures in a row"),
        ejected(&long, "10.0.0.1:1", "5 failures in a row"),
    ];
    assert!(index.say(&caller("cart", "a"), nonsense.to_vec()).is_empty() && index.is_empty());
    for (of, instance) in [("run this", "a"), ("Cart", "a"), ("ca\nrt", "a"), (&long, "a"), ("cart", &long)] {
        assert!(index.say(&caller(of, instance), vec![bad(1)]).is_empty(), "{of:.20} {instance:.20}");
    }
    assert!(index.is_empty());
    let many: Vec<_> = (0..200).map(bad).collect();
    index.say(&caller("cart", "a"), many);
    assert_eq!(index.told().len(), MAX_REPORTED);
    index.say(&caller("cart", "a"), vec![ejected("other", "10.0.0.1:1", "rm -rf /; see evil.example")]);
    let told = index.of.of("other");
    assert_eq!(told[&"10.0.0.1:1".parse().unwrap()].reason, UNKNOWN);
    assert_eq!(index.say(&caller("cart", "b"), vec![ejected("v6", "[fd00::1]:1", "a probe failed")]), ["v6"]);
}

#[test]
fn at_most_so_many_are_remembered_and_so_few_named() {
    let mut index = Index::new();
    for n in 0..20 * LINGERING / MAX_REPORTED {
        let says = (0..MAX_REPORTED)
            .map(|m| ejected(&format!("{n}"), &format!("10.0.0.1:{m}"), "5 failures in a row"));
        index.say(&caller("cart", "a"), says.collect());
        if n % 100 == 0 {
            let all = index.of.named.values().flat_map(|named| named.ejections.values());
            let remembered: usize = all.map(BTreeMap::len).sum();
            assert!(
                remembered <= LINGERING + MAX_REPORTED && index.of.ended.len() <= LINGERING,
                "{n}: {remembered}"
            );
        }
    }
    index.say(&caller("cart", "a"), Vec::new());
    index.pass(60);
    assert!(index.is_empty());
    for n in 0..9 {
        index.say(&caller(&format!("cart-{n}"), "a"), vec![bad(1)]);
    }
    index.pass(60);
    let told = index.of.of(NAME).values().next().unwrap().clone();
    assert_eq!((told.callers.len(), told.services, told.instances), (NAMED, 9, 9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever callers say, and when: what is told in the end is what they say in the end, and never more often than
    /// every so often.
    #[test]
    fn in_the_end_all_that_is_said_is_told_and_nothing_else(
        days in proptest::collection::vec((0..4_usize, proptest::collection::btree_set(0..3_usize, 0..3), 0..60_u64), 0..40)
    ) {
        let mut index = Index::new();
        let mut said: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut told: Vec<u64> = Vec::new();
        for (who, what, wait) in days {
            let says = what.iter().map(|n| bad(*n)).collect();
            if !index.say(&caller(&format!("cart-{}", who / 2), &who.to_string()), says).is_empty() {
                told.push(index.second);
            }
            said.insert(who, what);
            told.extend(index.pass(wait).into_iter().map(|(second, _)| second));
            let all: BTreeSet<usize> = said.values().flatten().copied().collect();
            if wait >= (LINGER + TELL).as_secs() {
                prop_assert_eq!(index.told().len(), all.len());
            }
        }
        told.extend(index.pass(60).into_iter().map(|(second, _)| second));
        prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= TELL.as_secs()), "{:?}", told);
        let mut wanted: BTreeMap<usize, (BTreeSet<usize>, usize)> = BTreeMap::new();
        for (who, what) in &said {
            for n in what {
                let one = wanted.entry(*n).or_default();
                one.0.insert(who / 2);
                one.1 += 1;
            }
        }
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(n, (services, instances))| (format!("10.0.0.{n}:50051"), services.len(), instances))
            .collect();
        prop_assert_eq!(index.told(), wanted);
        prop_assert_eq!(index.is_empty(), said.values().all(BTreeSet::is_empty));
    }
}
