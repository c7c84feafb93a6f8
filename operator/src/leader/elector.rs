//! Carries out what [`decide`](super::decide) says, over and over.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::decide::{Aim, Decision, Loss, Record, State, View, decide, record};
use super::standing::Standing;
use super::{Leadership, LeaseStore, REQUEST_DEADLINE, RETRY_PERIOD, Tenure, WriteError};
use crate::metrics::Metrics;
use crate::ports::{Answer, Unavailable};

/// One process's part in the election.
pub struct Elector<L> {
    lease: L,
    me: String,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
}

/// What one look came to.
enum Look {
    /// Look again in a while, no later than this.
    Again(Option<Duration>),
    /// Nothing is held; the process may end.
    Left,
}

impl<L: LeaseStore> Elector<L> {
    /// `me` is unique for each start of the process.
    pub fn new(lease: L, me: &str, leadership: Arc<Leadership>, metrics: Arc<Metrics>) -> Self {
        Self { lease, me: me.to_owned(), leadership, metrics }
    }

    /// Takes part until `leave` says true and the lease, if it is held, is released. Whoever leads and loses the
    /// lease must end the process: that is the error.
    pub async fn run(&self, mut leave: watch::Receiver<bool>) -> Result<(), Loss> {
        let clock = self.leadership.clock();
        let mut state = State::default();
        loop {
            let began = clock.now();
            let aim = if *leave.borrow_and_update() { Aim::Leave } else { Aim::Lead };
            let latest = match self.look(&mut state, aim).await {
                Ok(Look::Left) => {
                    self.step_down(String::new());
                    return Ok(());
                }
                Ok(Look::Again(latest)) => latest,
                Err(loss) => {
                    tracing::error!(%loss, "this process does not lead any more");
                    let leader = if let Loss::Taken(by) = &loss { by.clone() } else { String::new() };
                    self.step_down(leader);
                    return Err(loss);
                }
            };
            let again = match state.renewed {
                Some(_) => began + RETRY_PERIOD,
                None => clock.now() + RETRY_PERIOD.mul_f64(0.5 + fastrand::f64() / 2.0),
            };
            tokio::select! {
                () = clock.sleep_until(latest.map_or(again, |latest| again.min(latest))) => {}
                Ok(()) = leave.changed() => {}
            }
        }
    }

    async fn look(&self, state: &mut State, aim: Aim) -> Result<Look, Loss> {
        let clock = self.leadership.clock();
        let read = self.ask(state, self.lease.read()).await.and_then(|answer| answer);
        let now = clock.now();
        let (view, at) = match &read {
            Ok(Some((record, at))) => (View::There(record), Some(at)),
            Ok(None) => (View::Absent, None),
            Err(error) => {
                self.trouble(state, "the Lease cannot be read", error);
                (View::Unknown, None)
            }
        };
        state.see(view, now);
        let decision = decide(state, view, &self.me, aim, now);
        match &decision {
            Decision::Lost(loss) => return Err(loss.clone()),
            Decision::Left => return Ok(Look::Left),
            Decision::Wait(latest) => {
                self.follow(state, view);
                return Ok(Look::Again(*latest));
            }
            Decision::Acquire(_) | Decision::Renew | Decision::Release => {}
        }
        let Some(record) = record(&decision, view, &self.me, Timestamp::now()) else {
            return Ok(Look::Again(None));
        };
        if decision == Decision::Release {
            // Before the write leaves: it may take place long before its answer is here.
            self.step_down(String::new());
        }
        // Leadership counts from before the write leaves, however long it takes.
        let sent = clock.now();
        let written = self.ask(state, self.lease.write(&record, at)).await;
        match written.map_err(WriteError::from).and_then(|answer| answer) {
            Ok(()) if decision == Decision::Release => {
                tracing::info!("the Lease is released; another replica may lead at once");
                Ok(Look::Left)
            }
            Ok(()) => {
                state.wrote(sent);
                self.lead(state, &record);
                Ok(Look::Again(state.leads_until()))
            }
            Err(error) => {
                self.trouble(state, "the Lease cannot be written", &error);
                self.follow(state, view);
                Ok(Look::Again(state.leads_until()))
            }
        }
    }

    /// One request, within its deadline and that of leadership.
    async fn ask<T>(&self, state: &State, request: impl Future<Output = T>) -> Result<T, Unavailable> {
        let clock = self.leadership.clock();
        let end = clock.now() + REQUEST_DEADLINE;
        let end = state.leads_until().map_or(end, |until| until.min(end));
        clock.before(end, request).await.ok_or_else(|| Unavailable("no answer in time".to_owned()))
    }

    fn lead(&self, state: &State, record: &Record) {
        let Some(until) = state.leads_until() else { return };
        if !matches!(self.leadership.standing(), Standing::Leads { .. }) {
            tracing::info!(me = self.me, transitions = record.transitions, "this process leads from now on");
        }
        self.leadership.set(Standing::Leads { until });
        self.metrics.leads(true);
    }

    /// A standby follows who leads.
    fn follow(&self, state: &State, view: View<'_>) {
        if state.renewed.is_some() {
            return;
        }
        match view {
            View::Unknown => {}
            View::Absent => self.stand_by(String::new()),
            View::There(record) => self.stand_by(record.holder.clone()),
        }
    }

    fn stand_by(&self, leader: String) {
        let before = self.leadership.standing();
        self.step_down(leader);
        if self.leadership.standing() != before {
            tracing::info!("{}", self.leadership.told());
        }
    }

    fn step_down(&self, leader: String) {
        self.leadership.set(Standing::Standby { leader });
        self.metrics.leads(false);
    }

    /// A leader's trouble is news each time; a standby is told of it once a look, quietly.
    fn trouble(&self, state: &State, what: &str, error: &dyn std::error::Error) {
        if state.renewed.is_some() || self.leadership.standing() == Standing::Unknown {
            tracing::warn!(%error, "{what}; trying again");
        } else {
            tracing::debug!(%error, "{what}; trying again");
        }
    }
}

impl<L: LeaseStore> Tenure for Elector<L> {
    fn holds(&self) -> bool {
        self.leadership.holds()
    }

    fn confirm(&self) -> Answer<'_, Result<bool, Unavailable>> {
        Box::pin(async {
            let clock = self.leadership.clock();
            let end = clock.now() + REQUEST_DEADLINE;
            let read = clock.before(end, self.lease.read()).await;
            let read = read.ok_or_else(|| Unavailable("the Lease: no answer in time".to_owned()))??;
            Ok(read.is_some_and(|(record, _)| record.holder == self.me) && self.holds())
        })
    }
}
