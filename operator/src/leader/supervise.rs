//! The order in which a process ends.

use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio::time::timeout;

use super::LEASE_DURATION;
use super::decide::Loss;

/// How long the end waits for the lease to be released.
const RELEASE: Duration = Duration::from_secs(4);

/// How the work ended that only a leader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of it is in flight.
    Drained,
    /// Something may be.
    CutOff,
}

/// Runs `work` beside `election`. When the work has ended it tells the election by `leave`, and waits for the
/// lease to be released; what may be in flight keeps the lease until it runs out.
///
/// # Errors
/// The work's own, or that the lease was lost: the work is dropped at once then.
pub async fn supervise(
    election: impl Future<Output = Result<(), Loss>> + Send + 'static,
    leave: watch::Sender<bool>,
    work: impl Future<Output = anyhow::Result<End>>,
) -> anyhow::Result<()> {
    // A task of its own, so that a renewal waits for no work.
    let mut election = tokio::spawn(election);
    let end = tokio::select! {
        biased;
        early = &mut election => match early {
            Ok(Err(loss)) => bail!("{loss}; this process ends and writes nothing more"),
            Ok(Ok(())) => bail!("the election ended by itself"),
            Err(error) => bail!("the election ended: {error}"),
        },
        end = work => end?,
    };
    if end == End::CutOff {
        election.abort();
        tracing::warn!(
            "the Lease is not released, since something may be in flight; it runs out within {} s",
            LEASE_DURATION.as_secs()
        );
        return Ok(());
    }
    leave.send_replace(true);
    match timeout(RELEASE, election).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(loss))) => tracing::warn!(%loss, "there was no lease left to release"),
        Ok(Err(error)) => tracing::warn!(%error, "the Lease was not released; it runs out"),
        Err(_) => tracing::warn!("the Lease could not be released in time; it runs out"),
    }
    Ok(())
}
