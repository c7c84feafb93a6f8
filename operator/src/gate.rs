//! Every call to a backend under a policy of our own library: a deadline, and a breaker that opens after some calls in
//! a row got no answer, so that a backend that is away does not slow down the others. Then it is asked once a second
//! whether it is back, and whoever was refused meanwhile is told.

use std::time::Duration;

use fusebox::{BreakerMode, Class, Command, CommandError, Fusebox, Policy, PolicyBuilder};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::ports::Unavailable;

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long nobody asks a backend again that did not answer.
const REST: Duration = Duration::from_secs(1);
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
    /// Was somebody refused since the last answer?
    refuses: watch::Sender<bool>,
    back: watch::Sender<u64>,
    /// Why there was no answer last time: who is refused is told the same.
    why: watch::Sender<String>,
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
            refuses: watch::Sender::default(),
            back: watch::Sender::default(),
            why: watch::Sender::default(),
        }
    }

    /// How often the backend was found to be back after calls had been refused.
    pub fn back(&self) -> watch::Receiver<u64> {
        self.back.subscribe()
    }

    /// Asks a backend whose callers are refused whether it is back, by a call of `probe`, until it is; for ever. Nobody
    /// else may come for a long time.
    pub async fn keep_asking<F: Future>(&self, mut probe: impl FnMut() -> F) {
        let mut refuses = self.refuses.subscribe();
        // The sender lives as long as this gate.
        while refuses.wait_for(|refuses| *refuses).await.is_ok() {
            sleep(REST).await;
            let _ = probe().await;
        }
    }

    /// Runs `call`. An error of it is an answer as well.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.ask(call, |_| None).await
    }

    /// Runs `call`. Of some errors `silent` says that they are no answer, and how to tell a person: nothing listens, or
    /// the backend as a whole cannot work.
    pub async fn ask<T, E: From<Unavailable>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        silent: impl Fn(&E) -> Option<String>,
    ) -> Result<T, E> {
        let call = || async {
            match call.await {
                Err(error) => match silent(&error) {
                    Some(why) => Err((error, why)),
                    None => Ok(Err(error)),
                },
                done => Ok(done),
            }
        };
        match self.command.call_classified(call, |_: &(E, String)| Class::Failure).await {
            Ok(answer) => {
                if self.refuses.send_if_modified(std::mem::take) {
                    self.back.send_modify(|times| *times += 1);
                }
                answer
            }
            Err(CommandError::Failed((error, why))) => {
                self.silence(why);
                Err(error)
            }
            Err(CommandError::Timeout(_)) => {
                let why = format!("{} gave no answer within {} s", self.what, DEADLINE.as_secs());
                Err(Unavailable(self.silence(why)).into())
            }
            Err(_) => {
                self.refuses.send_if_modified(|refuses| !std::mem::replace(refuses, true));
                Err(Unavailable(self.why.borrow().clone()).into())
            }
        }
    }

    fn silence(&self, why: String) -> String {
        self.why.send_replace(why.clone());
        why
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
        assert!(
            silence(&gate).await.contains("no answer within 5 s"),
            "and whoever is refused is told the same"
        );
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

    /// As where nothing listens.
    async fn nobody(gate: &Gate) -> String {
        let call = async { Err::<u8, _>(Unavailable("connection refused".into())) };
        gate.ask(call, |error| Some(error.0.clone())).await.unwrap_err().0
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_few_ask_and_all_are_told_why() {
        let gate = Gate::new("a test");
        for _ in 0..PATIENCE {
            assert_eq!(nobody(&gate).await, "connection refused");
        }
        assert_eq!(silence(&gate).await, "connection refused");
        assert_eq!(answer(&gate).await.unwrap_err().0, "connection refused");
        tokio::time::advance(REST).await;
        assert_eq!(answer(&gate).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_refuses_is_asked_though_nobody_else_comes() {
        let gate = Gate::new("a test");
        let (asked, is_back) = (Cell::new(0_u32), Cell::new(false));
        let probe = async || {
            asked.set(asked.get() + 1);
            let call = async { if is_back.get() { Ok(1) } else { Err(Unavailable("no".into())) } };
            gate.ask(call, |error| Some(error.0.clone())).await
        };
        let mut back = gate.back();
        let story = async {
            sleep(REST * 5).await;
            assert_eq!(asked.get(), 0, "nobody was refused");
            for _ in 0..=PATIENCE {
                nobody(&gate).await;
            }
            sleep(REST * 10 + REST / 2).await;
            assert!((9..=10).contains(&asked.get()), "{}", asked.get());
            is_back.set(true);
            assert!(tokio::time::timeout(REST * 2, back.changed()).await.is_ok());
            let so_far = asked.get();
            sleep(REST * 5).await;
            assert_eq!(asked.get(), so_far);
        };
        tokio::select! {
            () = gate.keep_asking(probe) => unreachable!(),
            () = story => {}
        }
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
