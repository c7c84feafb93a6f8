//! What became of the calls of one lane.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fusebox_e2e::callers::Figures;
use tokio::sync::watch;

/// What became of the calls since it was last taken.
#[derive(Debug, Default)]
pub struct Tally(watch::Sender<Counts>);

#[derive(Debug, Default)]
struct Counts {
    errors: BTreeMap<String, u64>,
    /// In microseconds, of errors too: what their caller has waited.
    took: Vec<u64>,
    by_instance: BTreeMap<String, Counts>,
}

impl Tally {
    /// A call has ended, so long after it was due, and at this instance if its lane knows that.
    pub fn ended(&self, took: Duration, instance: Option<SocketAddr>, error: Option<&str>) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.send_modify(|counts| {
            counts.ended(micros, error);
            if let Some(instance) = instance {
                counts.by_instance.entry(instance.to_string()).or_default().ended(micros, error);
            }
        });
    }

    /// The figures of the calls that have ended since it was last taken.
    pub fn take(&self) -> Figures {
        let mut counts = Counts::default();
        self.0.send_modify(|now| std::mem::swap(now, &mut counts));
        counts.figures()
    }
}

impl Counts {
    fn ended(&mut self, micros: u64, error: Option<&str>) {
        self.took.push(micros);
        if let Some(error) = error {
            *self.errors.entry(error.to_owned()).or_default() += 1;
        }
    }

    fn figures(self) -> Figures {
        let Self { errors, mut took, by_instance } = self;
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        let at =
            |percent: usize| took.get((took.len() * percent / 100).min(last)).copied().unwrap_or_default();
        let (calls, p50_us, p99_us, max_us) = (took.len() as u64, at(50), at(99), at(100));
        let by_instance = by_instance.into_iter().map(|(instance, counts)| (instance, counts.figures()));
        Figures { calls, errors, p50_us, p99_us, max_us, by_instance: by_instance.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_ended_since() {
        let (tally, one) = (Tally::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        for millis in (1..=200).rev() {
            let error = (millis > 197).then_some("timeout");
            tally.ended(Duration::from_millis(millis), (millis <= 100).then_some(one), error);
        }
        let figures = tally.take();
        assert_eq!((figures.calls, figures.errors()), (200, 3));
        assert_eq!([figures.p50_us, figures.p99_us, figures.max_us], [101_000, 199_000, 200_000]);
        let instance = &figures.by_instance["10.0.0.1:1"];
        assert_eq!((instance.calls, instance.errors(), instance.max_us), (100, 0, 100_000));
        assert_eq!(tally.take(), Figures::default());
    }
}
