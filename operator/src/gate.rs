//! Every call to a backend under a policy of our own library: a deadline, and a breaker that opens after some calls in
//! a row got no answer, so that a silent backend does not slow down the others. One probe asks whether it is back;
//! whoever was refused comes again by its own back-off, or when it is told that the backend is back.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fusebox::{BreakerMode, Command, CommandError, Fusebox, Policy, PolicyBuilder};
use tokio::sync::watch;

use crate::ports::Unavailable;

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long nobody asks a backend again that did not answer.
const REST: Duration = Duration::from_secs(3);
/// After how many calls in a row without an answer. Any answer, be it an error, begins the count anew; a rest
/// does not.
const PATIENCE: u32 = 3;

/// A gate has one of its own.
const COMMAND: &str = "call";

/// One backend's.
#[derive(Debug)]
pub struct Gate {
    what: &'static str,
    command: Command,
    refuses: AtomicBool,
    back: watch::Sender<u64>,
}

impl Gate {
    /// Of the backend that people call `what`.
    pub fn new(what: &'static str) -> Self {
        let policy = PolicyBuilder::new().command(COMMAND, |command| {
            command.timeout(DEADLINE).circuit_breaker(|breaker| {
                breaker.error_percent_threshold(100).consecutive_failures(PATIENCE.into()).sleep_window(REST)
            })
        });
        Self::under(what, policy)
    }

    /// Of a backend that is asked on however often it is silent: one call's silence, like that of somebody's
    /// webhook, tells nothing of another's.
    pub fn restless(what: &'static str) -> Self {
        let policy = PolicyBuilder::new().command(COMMAND, |command| {
            command.timeout(DEADLINE).circuit_breaker(|breaker| breaker.mode(BreakerMode::Disabled))
        });
        Self::under(what, policy)
    }

    fn under(what: &'static str, policy: PolicyBuilder<'_>) -> Self {
        // Its numbers are in range, which a test shows; were they not, the compiled-in policy's would hold.
        let fusebox = Fusebox::fixed(policy.build().unwrap_or_else(|_| Policy::compiled_in()));
        Self {
            what,
            command: fusebox.command(COMMAND),
            refuses: AtomicBool::new(false),
            back: watch::Sender::default(),
        }
    }

    /// How often the backend was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.back.subscribe()
    }

    /// Runs `call`.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let silent = |ago: &str| {
            Unavailable(format!("{} gave no answer within {} s{ago}", self.what, DEADLINE.as_secs()))
        };
        match self.command.call(|| async { Ok::<_, Infallible>(call.await) }).await {
            Ok(answer) => {
                if self.refuses.swap(false, Ordering::Relaxed) {
                    self.back.send_modify(|times| *times += 1);
                }
                answer
            }
            Err(CommandError::Timeout(_)) => Err(silent("").into()),
            Err(_) => {
                self.refuses.store(true, Ordering::Relaxed);
                Err(silent(", several times a moment ago").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

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
    async fn one_call_asks_whether_it_is_back_and_the_others_wait_for_its_answer() {
        let gate = Gate::new("a test");
        let mut back = gate.back();
        for _ in 0..PATIENCE {
            silence(&gate).await;
        }
        tokio::time::advance(REST).await;
        let probe = gate.run(async {
            assert!(answer(&gate).await.is_err(), "a second one beside the probe");
            Ok::<_, Unavailable>(2)
        });
        assert_eq!(probe.await, Ok(2));
        assert!(back.has_changed().unwrap(), "whoever was refused may come");
        back.mark_unchanged();
        assert_eq!(answer(&gate).await, Ok(1));
        silence(&gate).await;
        assert_eq!(answer(&gate).await, Ok(1));
        assert!(!back.has_changed().unwrap(), "nobody was refused");
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
