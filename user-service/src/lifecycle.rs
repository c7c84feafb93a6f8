//! How a process starts and ends: ready once it has a policy, draining before it closes.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::cli::ProcessArgs;

/// Where a process is in its life. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waits for its first policy. It serves, but says that it is not ready.
    Starting,
    /// Serves.
    Ready,
    /// Told to end: still serves, but says that it is not ready, so that everyone stops sending.
    Draining,
    /// Accepts no connection any more; requests in flight finish.
    Closing,
}

/// Follows a process through its [`Phase`]s.
#[derive(Clone, Debug)]
pub struct Life(watch::Receiver<Phase>);

impl Life {
    /// Begins in [`Phase::Starting`]; each message to `stop` asks for the end, a second one skips the drain.
    pub fn begin(
        policy: impl Future<Output = ()> + Send + 'static,
        stop: mpsc::Receiver<()>,
        process: ProcessArgs,
    ) -> Self {
        let (phase, life) = watch::channel(Phase::Starting);
        tokio::spawn(live(phase, policy, stop, process));
        Self(life)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until `phase` or a later one is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.0.clone();
        // An error means that nobody moves the phase any more: the process is at its end.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}

async fn live(
    phase: watch::Sender<Phase>,
    policy: impl Future<Output = ()>,
    mut stop: mpsc::Receiver<()>,
    process: ProcessArgs,
) {
    let stopped = tokio::select! {
        first = timeout(process.policy_wait, policy) => {
            if first.is_err() {
                tracing::warn!(waited = ?process.policy_wait, "no policy arrived: ready without it, it applies when it comes");
            }
            false
        }
        _ = stop.recv() => true,
    };
    if !stopped {
        phase.send_replace(Phase::Ready);
        tracing::info!("ready");
        stop.recv().await;
    }
    phase.send_replace(Phase::Draining);
    tracing::info!(drain = ?process.drain, "told to end: not ready any more, still serving");
    let _ = timeout(process.drain, stop.recv()).await;
    phase.send_replace(Phase::Closing);
    tracing::info!("closing: requests in flight finish");
}

/// SIGTERM and SIGINT as messages.
pub fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, told) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if tell.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(told)
}

/// Waits for `servers`, but no longer than `grace` after [`Phase::Closing`]. Says whether they ended by themselves.
pub async fn until_closed(servers: impl Future<Output = ()>, life: &Life, grace: Duration) -> bool {
    tokio::select! {
        () = servers => true,
        () = async {
            life.reached(Phase::Closing).await;
            tokio::time::sleep(grace).await;
        } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    fn process() -> ProcessArgs {
        let seconds = Duration::from_secs;
        ProcessArgs { policy_wait: seconds(10), drain: seconds(5), grace: seconds(10) }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_as_soon_as_there_is_a_policy() {
        let (begun, (_stop, stopped)) = (Instant::now(), mpsc::channel(1));
        Life::begin(ready(()), stopped, process()).reached(Phase::Ready).await;
        assert_eq!(Instant::now(), begun);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_without_a_policy_after_the_time_limit() {
        let (begun, (_stop, stopped)) = (Instant::now(), mpsc::channel(1));
        let life = Life::begin(pending(), stopped, process());
        assert_eq!(life.phase(), Phase::Starting);
        life.reached(Phase::Ready).await;
        assert_eq!(Instant::now() - begun, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn drains_before_it_closes() {
        let (stop, stopped) = mpsc::channel(1);
        let life = Life::begin(ready(()), stopped, process());
        life.reached(Phase::Ready).await;
        stop.send(()).await.unwrap();
        life.reached(Phase::Draining).await;
        let drained = Instant::now();
        life.reached(Phase::Closing).await;
        assert_eq!(Instant::now() - drained, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_skips_the_drain() {
        let (begun, (stop, stopped)) = (Instant::now(), mpsc::channel(2));
        let life = Life::begin(ready(()), stopped, process());
        life.reached(Phase::Ready).await;
        stop.send(()).await.unwrap();
        stop.send(()).await.unwrap();
        life.reached(Phase::Closing).await;
        assert_eq!(Instant::now(), begun);
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_end_before_it_was_ready() {
        let (stop, stopped) = mpsc::channel(1);
        stop.send(()).await.unwrap();
        Life::begin(pending(), stopped, process()).reached(Phase::Closing).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_given_up_after_the_grace() {
        let (stop, stopped) = mpsc::channel(1);
        let life = Life::begin(ready(()), stopped, process());
        stop.send(()).await.unwrap();
        assert!(!until_closed(pending(), &life, process().grace).await);
    }
}
