//! Rolling windows from counters that only grow.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::sample::{Counts, Sample};
use crate::clock::Now;
use crate::latency::Durations;

/// Hystrix's `metrics.rollingStats.timeInMilliseconds`.
pub(super) const COUNTS: Duration = Duration::from_secs(10);
/// Hystrix's `metrics.rollingPercentile.timeInMilliseconds`.
const LATENCIES: Duration = Duration::from_mins(1);
/// As Hystrix's percentiles, `metrics.rollingPercentile.numBuckets`: the window of latencies moves by a
/// sixth, and so covers the last 50 to 60 seconds.
const LATENCY_STEP: Duration = Duration::from_secs(10);
/// How late a timer may be: a moment this much too old is taken as one in time.
const SLACK: Duration = Duration::from_millis(500);

/// Something of every command, at several moments.
type Moments<T> = VecDeque<(Now, HashMap<&'static str, T>)>;

/// What was counted before, as long as a window looks back.
#[derive(Debug, Default)]
pub(super) struct History {
    /// With the calls in flight.
    counts: Moments<(Counts, u32)>,
    durations: Moments<Durations>,
}

/// What a command did within the windows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// Over [`COUNTS`].
    pub(super) counts: Counts,
    /// Over [`LATENCIES`].
    pub(super) durations: Durations,
    /// The most in flight at any of the moments looked at, over [`COUNTS`].
    pub(super) max_in_flight: u32,
}

impl History {
    /// Keeps what was counted until now, and forgets what no window reaches any more.
    pub(super) fn keep(&mut self, now: Now, samples: &[Sample]) {
        forget(&mut self.counts, now, COUNTS);
        let counts = samples.iter().map(|sample| (sample.command, (sample.counts, sample.in_flight)));
        self.counts.push_back((now, counts.collect()));
        forget(&mut self.durations, now, LATENCIES);
        let due = |(last, _): &(Now, _)| now.since(*last) + SLACK >= LATENCY_STEP;
        if self.durations.back().is_none_or(due) {
            let durations = samples.iter().map(|sample| (sample.command, sample.durations.clone()));
            self.durations.push_back((now, durations.collect()));
        }
    }

    /// What `sample` counts that was not counted when the windows began. A command that was not there then
    /// had counted nothing.
    pub(super) fn window(&self, sample: &Sample) -> Window {
        let counts = self.counts.front().and_then(|(_, counts)| counts.get(sample.command));
        let durations = self.durations.front().and_then(|(_, durations)| durations.get(sample.command));
        let in_flight = self.counts.iter().filter_map(|(_, counts)| Some(counts.get(sample.command)?.1));
        Window {
            counts: counts.map_or(sample.counts, |(counts, _)| sample.counts.since(counts)),
            durations: durations
                .map_or_else(|| sample.durations.clone(), |earlier| sample.durations.since(earlier)),
            max_in_flight: in_flight.max().unwrap_or(0).max(sample.in_flight),
        }
    }
}

/// Drops the moments that lie further back than `reach`.
fn forget<T>(moments: &mut Moments<T>, now: Now, reach: Duration) {
    while moments.front().is_some_and(|(at, _)| now.since(*at) > reach + SLACK) {
        moments.pop_front();
    }
}
