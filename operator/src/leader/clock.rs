//! This process's own time.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Tells how long ago it was made. It never jumps, and stands still only with the whole machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// How much faster than real time it goes.
    #[cfg(test)]
    rate: f64,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            #[cfg(test)]
            rate: 1.0,
        }
    }

    /// One that goes wrong.
    #[cfg(test)]
    pub fn at_rate(rate: f64) -> Self {
        Self { start: Instant::now(), rate }
    }

    /// Since its start.
    pub fn now(&self) -> Duration {
        let real = Instant::now().duration_since(self.start);
        #[cfg(test)]
        let real = real.mul_f64(self.rate);
        real
    }

    /// Until it shows `at`.
    pub async fn sleep_until(&self, at: Duration) {
        while let Some(left) = at.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            sleep(real(self, left)).await;
        }
    }

    /// The result of `work`, if it comes before this clock shows `at`.
    pub async fn before<T>(&self, at: Duration, work: impl Future<Output = T>) -> Option<T> {
        timeout(real(self, at.saturating_sub(self.now())), work).await.ok()
    }
}

#[cfg(not(test))]
fn real(_: &Clock, local: Duration) -> Duration {
    local
}

#[cfg(test)]
fn real(clock: &Clock, local: Duration) -> Duration {
    local.div_f64(clock.rate)
}
