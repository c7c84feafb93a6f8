//! From the files of writer and subject to the figures of a round.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::bench::stats::quantile;

/// One put, as the writer tells it: nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Put {
    number: u32,
    due: u64,
    start: u64,
    end: u64,
    /// etcd's order, which is not the writer's where two were under way.
    revision: u64,
}

/// Of one round; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// Puts a second.
    pub rate: f64,
    /// From when a put was due to its start.
    pub late_p99: f64,
    /// From its start to etcd's answer.
    pub ack_p50: f64,
    /// Documents that no call saw.
    pub unseen: u32,
    /// Times that an older document was seen after a newer one.
    pub back: u32,
}

/// Every put counts from its start to the first sight of its document or of a newer one: so one that was
/// superseded counts too, by what it cost. Those up to `warm_up` do not count.
pub fn measure(puts: &str, arrivals: &str, warm_up: u32) -> Result<Latency> {
    let mut puts = puts.lines().map(put).collect::<Result<Vec<_>>>()?;
    let arrivals = arrivals.lines().map(|line| Ok(numbers::<2>(line)?.into())).collect::<Result<Vec<_>>>()?;
    puts.sort_by_key(|put| put.revision);
    let first = first_seen(&arrivals);
    let (mut newer, mut took, mut unseen) = (None, Vec::new(), 0);
    for put in puts.iter().rev() {
        let seen = first.get(&u64::from(put.number)).copied();
        newer = [newer, seen].into_iter().flatten().min();
        if put.number <= warm_up {
            continue;
        }
        unseen += u32::from(seen.is_none());
        let seen = newer.context("the last document was not seen")?;
        took.push(micros(put.start, seen));
    }
    let counted = || puts.iter().filter(|put| put.number > warm_up);
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let (took, late) = (sorted(took), sorted(counted().map(|put| micros(put.due, put.start)).collect()));
    let acks = sorted(counted().map(|put| micros(put.start, put.end)).collect());
    let of = |values: &[f64], part| quantile(values, part).context("no puts");
    Ok(Latency {
        p50: of(&took, 0.5)?,
        p99: of(&took, 0.99)?,
        max: of(&took, 1.0)?,
        rate: rate(counted().map(|put| put.start)).context("too few puts")?,
        late_p99: of(&late, 0.99)?,
        ack_p50: of(&acks, 0.5)?,
        unseen,
        back: back(&puts, &arrivals),
    })
}

/// For how many milliseconds after the first put something was seen; None: never.
pub fn survived(puts: &str, arrivals: &str) -> Option<f64> {
    let begin = puts.lines().filter_map(|line| put(line).ok()).map(|put| put.start).min()?;
    let last = arrivals.lines().filter_map(|line| numbers::<2>(line).ok()).map(|[_, at]| at).max()?;
    Some(micros(begin, last).max(0.0) / 1e3)
}

/// When each document was first seen.
fn first_seen(arrivals: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    let mut first = BTreeMap::new();
    for (number, at) in arrivals {
        first.entry(*number).or_insert(*at);
    }
    first
}

/// How often what was seen is older, by etcd's order, than something that was seen before.
fn back(puts: &[Put], arrivals: &[(u64, u64)]) -> u32 {
    let order: BTreeMap<_, _> = puts.iter().map(|put| (u64::from(put.number), put.revision)).collect();
    let (mut newest, mut back) = (0, 0);
    for (number, _) in arrivals {
        // Document 0 was there before the first put.
        let revision = order.get(number).copied().unwrap_or_default();
        back += u32::from(revision < newest);
        newest = newest.max(revision);
    }
    back
}

/// Puts a second, by the first and the last.
fn rate(starts: impl Iterator<Item = u64> + Clone) -> Option<f64> {
    let (first, last) = (starts.clone().min()?, starts.clone().max()?);
    let between = f64::from(u32::try_from(starts.count()).ok()?.checked_sub(1)?);
    (last > first).then(|| between / micros(first, last) * 1e6)
}

/// Nanoseconds of one to those of another, in microseconds; below zero if the other is earlier.
#[allow(clippy::cast_precision_loss)] // a few minutes of them
fn micros(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e3
}

fn put(line: &str) -> Result<Put> {
    let [number, due, start, end, revision] = numbers(line)?;
    Ok(Put { number: u32::try_from(number)?, due, start, end, revision })
}

fn numbers<const N: usize>(line: &str) -> Result<[u64; N]> {
    let found = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let found = found.with_context(|| format!("no numbers: {line}"))?;
    let found: Option<[u64; N]> = found.try_into().ok();
    ensure!(found.is_some(), "not {N} numbers: {line}");
    Ok(found.unwrap_or([0; N]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A put each millisecond, which took 200 us to be answered, as the writer tells it.
    fn puts(numbers: impl Iterator<Item = (u64, u64)>) -> String {
        numbers.fold(String::new(), |text, (number, revision)| {
            let start = number * 1_000_000;
            text + &format!("{number} {} {start} {} {revision}\n", start - 5000, start + 200_000)
        })
    }

    fn in_order(last: u64) -> String {
        puts((1..=last).map(|number| (number, number + 10)))
    }

    #[test]
    fn a_document_counts_from_its_put_to_its_first_sight() {
        let arrivals = "0 900000\n1 1100000\n2 2300000\n2 2400000\n3 3100000\n";
        let measured = measure(&in_order(3), arrivals, 0).unwrap();
        assert_eq!([measured.p50, measured.p99, measured.max].map(Some), [100.0, 300.0, 300.0].map(Some));
        let others = [measured.rate, measured.late_p99, measured.ack_p50];
        assert_eq!(others.map(Some), [1000.0, 5.0, 200.0].map(Some));
        assert_eq!((measured.unseen, measured.back), (0, 0));
        assert_eq!(measure(&in_order(3), arrivals, 2).err().unwrap().to_string(), "too few puts");
        assert_eq!(measure(&in_order(3), arrivals, 1).ok().map(|measured| measured.max), Some(300.0));
    }

    #[test]
    fn one_that_was_superseded_counts_to_the_first_sight_of_a_newer_one() {
        let measured = measure(&in_order(3), "1 1100000\n3 3100000\n", 0).unwrap();
        assert_eq!((Some(measured.max), measured.unseen), (Some(1100.0), 1));
        let lost = measure(&in_order(3), "1 1100000\n2 2100000\n", 0);
        assert_eq!(lost.err().unwrap().to_string(), "the last document was not seen");
    }

    #[test]
    fn newer_is_what_etcd_has_taken_later() {
        let swapped = puts([(1, 11), (2, 13), (3, 12), (4, 14)].into_iter());
        let measured = measure(&swapped, "1 1100000\n3 3100000\n2 3200000\n4 4100000\n", 0).unwrap();
        assert_eq!((measured.unseen, measured.back), (0, 0));
        let back = measure(&swapped, "1 1100000\n2 3100000\n3 3200000\n4 4100000\n", 0).unwrap();
        assert_eq!(back.back, 1);
    }

    #[test]
    fn one_that_died_was_there_until_what_it_saw_last() {
        assert_eq!(survived(&in_order(3), "0 900000\n1 1500000\n"), Some(0.5));
        assert_eq!(survived(&in_order(3), "0 900000\n"), Some(0.0));
        assert_eq!(survived(&in_order(3), ""), None);
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        assert!(measure("1 2 3", "", 0).is_err() && measure("", "a b", 0).is_err());
    }
}
