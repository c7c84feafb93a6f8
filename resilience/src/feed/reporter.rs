//! Keeps this instance's report in etcd, under a lease.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fusebox_policy::wire::Report;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::env::{Identity, Settings};
use crate::etcd::{Connection, EtcdError, Lease, Link, answered, delays};
use crate::fusebox::{Applied, Shared};
use crate::report::report;

/// How long a report outlives its instance.
pub(super) const TTL: Duration = Duration::from_secs(10);

/// How often the lease is renewed, and the key looked at: two renewals may be lost.
const BEAT: Duration = Duration::from_secs(3);

/// The least time between two writes, but for the second of a lease.
const PAUSE: Duration = Duration::from_secs(1);

/// One instance's report.
pub(super) struct Reporter<L> {
    etcd: L,
    key: String,
    identity: Identity,
    /// Made anew at every start.
    boot: String,
    shared: Arc<Shared>,
}

impl<L: Link> Reporter<L> {
    pub(super) fn new(settings: &Settings, etcd: L, shared: Arc<Shared>) -> Self {
        Self {
            etcd,
            key: settings.keys.report(&settings.service, &settings.identity.key),
            identity: settings.identity.clone(),
            boot: uuid::Uuid::new_v4().simple().to_string(),
            shared,
        }
    }

    /// Reports until it is stopped, whatever becomes of etcd. `reported` turns true with the first
    /// report written.
    pub(super) async fn run(self, stop: CancellationToken, reported: watch::Sender<bool>) {
        let mut delay = delays();
        loop {
            let started = Instant::now();
            let Err(error) = Box::pin(self.session(&stop, &reported)).await else { return };
            if Instant::now() - started >= TTL {
                delay = delays();
            }
            let wait = delay.next().unwrap_or(TTL);
            tracing::warn!(%error, retry_in = ?wait, "report interrupted");
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One lease, from its grant to its loss, or to its revocation when stopped.
    async fn session(
        &self,
        stop: &CancellationToken,
        reported: &watch::Sender<bool>,
    ) -> Result<(), EtcdError> {
        // Before the first report is made: what changes from here on wakes the loop below.
        let mut applied = self.shared.applied.subscribe();
        let mut session = {
            let mut start = pin!(Session::start(&self.etcd));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                session = &mut start => session?,
            }
        };
        self.shared.counts.leases.fetch_add(1, Ordering::Relaxed);
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<Report> = None;
        let mut not_before = Instant::now();
        loop {
            let due = written.as_ref() != Some(&self.report());
            tokio::select! {
                biased;
                () = stop.cancelled() => return session.end().await,
                // Before the lease, which vouches for what was told: were it renewed first, a slow etcd would keep an
                // old report alive for as long as renewals take longer than the time between them.
                () = sleep_until(not_before), if due => {
                    let report = self.report();
                    session.write(&self.key, &report).await?;
                    self.shared.counts.reports.fetch_add(1, Ordering::Relaxed);
                    // The first tells that this process is there; what it runs may follow at once.
                    not_before = Instant::now() + if written.is_none() { Duration::ZERO } else { PAUSE };
                    written = Some(report);
                    reported.send_if_modified(|reported| !std::mem::replace(reported, true));
                }
                _ = beat.tick() => {
                    session.renew().await?;
                    // The lease may live and its key be gone: deleted by hand, or written late by the
                    // session before and ended with its lease.
                    if let Some(ours) = &written && !session.holds(&self.key, ours).await? {
                        tracing::warn!(key = %self.key, "the report was gone or another's: written again");
                        written = None;
                    }
                }
                () = self.change(&mut applied), if !due => {}
            }
        }
    }

    fn report(&self) -> Report {
        report(&self.identity, &self.boot, &self.shared)
    }

    /// Waits for anything that a report tells.
    async fn change(&self, applied: &mut watch::Receiver<Applied>) {
        tokio::select! {
            _ = applied.changed() => {}
            () = self.shared.changed.notified() => {}
        }
    }
}

/// A connection with a lease.
struct Session<C: Connection> {
    connection: C,
    lease: C::Lease,
}

impl<C: Connection> Session<C> {
    async fn start<L: Link<Connection = C>>(etcd: &L) -> Result<Self, EtcdError> {
        let mut connection = answered("a connection", etcd.open()).await?;
        let lease = answered("a lease", connection.grant(TTL)).await?;
        Ok(Self { connection, lease })
    }

    async fn renew(&mut self) -> Result<(), EtcdError> {
        if answered("a lease's renewal", self.lease.renew()).await? {
            return Ok(());
        }
        Err(EtcdError::Ended("the lease is lost".to_owned()))
    }

    async fn write(&mut self, key: &str, report: &Report) -> Result<(), EtcdError> {
        let json = serde_json::to_vec(report).map_err(|error| EtcdError::Ended(error.to_string()))?;
        answered("a report", self.connection.put(key, json, self.lease.id())).await
    }

    /// Whether the key has this report under this lease. A consistent read, so what was written before is
    /// seen.
    async fn holds(&mut self, key: &str, report: &Report) -> Result<bool, EtcdError> {
        let Some((value, lease)) = answered("a report's check", self.connection.get(key)).await? else {
            return Ok(false);
        };
        let there = serde_json::from_slice::<Report>(&value);
        Ok(lease == self.lease.id() && there.is_ok_and(|there| there == *report))
    }

    async fn end(mut self) -> Result<(), EtcdError> {
        answered("a lease's end", self.connection.revoke(self.lease.id())).await
    }
}
