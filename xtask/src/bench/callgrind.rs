//! Instructions of one call, from two runs under callgrind: start-up cancels.

use anyhow::{Context, Result};

use super::programs::Programs;

/// The calls of the shorter run, and of the longer.
const CALLS: [u32; 2] = [1_000, 11_000];

/// How often each is run. The least counts: valgrind now and then lets a library's own thread wait, and
/// the calls do its work meanwhile.
const RUNS: usize = 3;

/// Counts the instructions of one call of a Rust row.
pub fn instructions(programs: &Programs, row: [&str; 3]) -> Result<f64> {
    let mut counts = [u64::MAX; 2];
    for (count, calls) in counts.iter_mut().zip(CALLS) {
        for _ in 0..RUNS {
            let text = programs.under_callgrind(row, &calls.to_string())?;
            *count = collected(&text).context("callgrind told no count")?.min(*count);
        }
    }
    per_call(counts, CALLS).context("the longer run had fewer instructions")
}

/// The count on the line `==1== Collected : 123`.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("==") && line.contains("Collected :"))?;
    // Of several events instructions are the first.
    line.rsplit_once(':')?.1.split_whitespace().next()?.parse().ok()
}

fn per_call(counts: [u64; 2], calls: [u32; 2]) -> Option<f64> {
    let instructions = u32::try_from(counts[1].checked_sub(counts[0])?).ok()?;
    Some(f64::from(instructions) / f64::from(calls[1].checked_sub(calls[0])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_count_of_instructions() {
        let text =
            "==47== Events    : Ir\n==47== Collected : 1570740\n==47== \n==47== I   refs:      1,570,740\n";
        assert_eq!(collected(text), Some(1_570_740));
        assert_eq!(collected("==47== Collected : 12 7 8\n"), Some(12));
        assert_eq!(collected("Collected : 12\n==1== Events : Ir"), None);
    }

    #[test]
    fn start_up_cancels() {
        assert_eq!(per_call([1_500_100, 1_501_100], [1, 11]), Some(100.0));
        assert_eq!(per_call([2, 1], [1, 11]), None);
    }
}
