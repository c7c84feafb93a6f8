//! Keeps this instance's report in etcd, under a lease.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Client, KeyValue, LeaseKeepAliveStream, LeaseKeeper, PutOptions};
use fusebox_policy::wire::Report;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::env::{Identity, Settings};
use crate::etcd::{EtcdConfig, EtcdError, answered, connect, delays};
use crate::fusebox::{Applied, Shared};
use crate::report::report;

/// How long a report outlives its instance.
pub(super) const TTL: Duration = Duration::from_secs(10);

/// How often the lease is renewed, and the key looked at: two renewals may be lost.
const BEAT: Duration = Duration::from_secs(3);

/// The least time between two writes, but for the second of a lease.
const PAUSE: Duration = Duration::from_secs(1);

/// One instance's report.
pub(super) struct Reporter {
    etcd: EtcdConfig,
    key: String,
    identity: Identity,
    /// Made anew at every start.
    boot: String,
    shared: Arc<Shared>,
}

impl Reporter {
    pub(super) fn new(settings: &Settings, shared: Arc<Shared>) -> Self {
        Self {
            etcd: settings.etcd.clone(),
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
                _ = beat.tick() => {
                    session.renew().await?;
                    // The lease may live and its key be gone: deleted by hand, or written late by the
                    // session before and ended with its lease.
                    if let Some(ours) = &written && !session.holds(&self.key, ours).await? {
                        tracing::warn!(key = %self.key, "the report was gone or another's: written again");
                        written = None;
                    }
                }
                () = sleep_until(not_before), if due => {
                    let report = self.report();
                    session.write(&self.key, &report).await?;
                    self.shared.counts.reports.fetch_add(1, Ordering::Relaxed);
                    // The first tells that this process is there; what it runs may follow at once.
                    not_before = Instant::now() + if written.is_none() { Duration::ZERO } else { PAUSE };
                    written = Some(report);
                    reported.send_if_modified(|reported| !std::mem::replace(reported, true));
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

/// A lease and what keeps it.
struct Session {
    client: Client,
    lease: i64,
    keeper: LeaseKeeper,
    renewals: LeaseKeepAliveStream,
}

impl Session {
    async fn start(etcd: &EtcdConfig) -> Result<Self, EtcdError> {
        let mut client = connect(etcd).await?;
        let ttl = i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX);
        let lease = answered("a lease", client.lease_grant(ttl, None)).await?.id();
        let (keeper, renewals) = answered("a lease's renewal", client.lease_keep_alive(lease)).await?;
        Ok(Self { client, lease, keeper, renewals })
    }

    async fn renew(&mut self) -> Result<(), EtcdError> {
        let renewal = async {
            self.keeper.keep_alive().await?;
            self.renewals.message().await
        };
        match answered("a lease's renewal", renewal).await? {
            Some(renewed) if renewed.ttl() > 0 => Ok(()),
            _ => Err(EtcdError::Ended("the lease is lost".to_owned())),
        }
    }

    async fn write(&mut self, key: &str, report: &Report) -> Result<(), EtcdError> {
        let json = serde_json::to_vec(report).map_err(|error| EtcdError::Ended(error.to_string()))?;
        let options = PutOptions::new().with_lease(self.lease);
        answered("a report", self.client.put(key, json, Some(options))).await.map(drop)
    }

    /// Whether the key has this report under this lease. A linearizable read, so what was written
    /// before is seen.
    async fn holds(&mut self, key: &str, report: &Report) -> Result<bool, EtcdError> {
        let found = answered("a report's check", self.client.get(key, None)).await?;
        let ours = |kv: &KeyValue| {
            let there = serde_json::from_slice::<Report>(kv.value());
            kv.lease() == self.lease && there.is_ok_and(|there| there == *report)
        };
        Ok(found.kvs().first().is_some_and(ours))
    }

    async fn end(mut self) -> Result<(), EtcdError> {
        answered("a lease's end", self.client.lease_revoke(self.lease)).await.map(drop)
    }
}
