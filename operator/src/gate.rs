//! A deadline for every call to a backend, and a short memory of silence: after some calls in a row got no
//! answer, the next ones fail at once instead of waiting as long, so that a silent backend does not slow down
//! the others. One slow call among answered ones keeps nobody from asking.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::ports::Unavailable;

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long nobody asks a backend again that did not answer.
const REST: Duration = Duration::from_secs(3);
/// After how many calls in a row without an answer. Any answer, be it an error, begins the count anew; a rest
/// does not.
const PATIENCE: u32 = 3;

/// One backend's.
#[derive(Debug)]
pub struct Gate {
    what: &'static str,
    rests: bool,
    silence: watch::Sender<Silence>,
}

#[derive(Debug, Default)]
struct Silence {
    calls: u32,
    rests_until: Option<Instant>,
}

impl Gate {
    /// Of the backend that people call `what`.
    pub fn new(what: &'static str) -> Self {
        Self { what, rests: true, silence: watch::Sender::default() }
    }

    /// Of a backend that is asked on however often it is silent: one call's silence, like that of somebody's
    /// webhook, tells nothing of another's.
    pub fn restless(what: &'static str) -> Self {
        Self { rests: false, ..Self::new(what) }
    }

    /// Runs `call`.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let silent = |ago: &str| {
            Unavailable(format!("{} gave no answer within {} s{ago}", self.what, DEADLINE.as_secs()))
        };
        if self.silence.borrow().rests_until.is_some_and(|until| Instant::now() < until) {
            return Err(silent(", several times a moment ago").into());
        }
        if let Ok(done) = timeout(DEADLINE, call).await {
            self.silence.send_replace(Silence::default());
            return done;
        }
        self.silence.send_modify(|silence| {
            silence.calls = silence.calls.saturating_add(1);
            if self.rests && silence.calls >= PATIENCE {
                silence.rests_until = Some(Instant::now() + REST);
            }
        });
        Err(silent("").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn silence(gate: &Gate) -> String {
        gate.run(std::future::pending::<Result<(), Unavailable>>()).await.unwrap_err().0
    }

    async fn answer(gate: &Gate) -> Result<u8, Unavailable> {
        gate.run(async { Ok(1) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_a_row_costs_a_few_deadlines_and_is_forgiven() {
        let gate = Gate::new("a test");
        let start = Instant::now();
        for _ in 0..PATIENCE {
            assert!(silence(&gate).await.contains("no answer within 5 s"));
        }
        assert!(silence(&gate).await.contains("a moment ago"));
        assert_eq!(Instant::now() - start, DEADLINE * PATIENCE);
        tokio::time::advance(REST).await;
        silence(&gate).await;
        assert!(answer(&gate).await.is_err(), "one more is enough after a rest");
        tokio::time::advance(REST).await;
        assert_eq!(answer(&gate).await, Ok(1));
        silence(&gate).await;
        assert_eq!(answer(&gate).await, Ok(1), "the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_among_answered_ones_stops_nobody() {
        let gate = Gate::new("a test");
        for _ in 0..10 {
            silence(&gate).await;
            assert_eq!(gate.run(async { Err::<(), _>(Unavailable("no".into())) }).await.unwrap_err().0, "no");
            silence(&gate).await;
            assert_eq!(answer(&gate).await, Ok(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restless_one_is_asked_on() {
        let gate = Gate::restless("a test");
        for _ in 0..=PATIENCE {
            silence(&gate).await;
        }
        assert_eq!(answer(&gate).await, Ok(1));
    }
}
