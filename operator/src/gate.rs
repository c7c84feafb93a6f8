//! A deadline for every call to a backend, and a short memory of silence: after one call got no answer, the
//! next ones fail at once instead of waiting as long, so that a silent backend does not slow down the others.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::ports::Unavailable;

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long nobody asks a backend again that did not answer.
const REST: Duration = Duration::from_secs(3);

/// One backend's.
#[derive(Debug)]
pub struct Gate {
    what: &'static str,
    rests_until: watch::Sender<Option<Instant>>,
}

impl Gate {
    /// Of the backend that people call `what`.
    pub fn new(what: &'static str) -> Self {
        Self { what, rests_until: watch::Sender::new(None) }
    }

    /// Runs `call`.
    pub async fn run<T, E: From<Unavailable>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let silent = |ago: &str| {
            Unavailable(format!("{} gave no answer within {} s{ago}", self.what, DEADLINE.as_secs()))
        };
        if self.rests_until.borrow().is_some_and(|until| Instant::now() < until) {
            return Err(silent(", a moment ago").into());
        }
        if let Ok(done) = timeout(DEADLINE, call).await {
            return done;
        }
        self.rests_until.send_replace(Some(Instant::now() + REST));
        Err(silent("").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_costs_one_deadline_and_is_forgiven() {
        let gate = Gate::new("a test");
        let silence = || gate.run(std::future::pending::<Result<(), Unavailable>>());
        let start = Instant::now();
        assert!(silence().await.unwrap_err().0.contains("no answer within 5 s"));
        assert!(silence().await.unwrap_err().0.contains("a moment ago"));
        assert_eq!(Instant::now() - start, DEADLINE);
        tokio::time::advance(REST).await;
        assert_eq!(gate.run(async { Ok::<_, Unavailable>(1) }).await, Ok(1));
    }
}
