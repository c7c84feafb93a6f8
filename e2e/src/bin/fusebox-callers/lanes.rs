//! The ways of calling, side by side: the same calls, as often, of the same endpoints.
//!
//! - `retried`: the library's channel, under a policy that lets an idempotent call be tried again.
//! - `once`: the same under a policy without retries: what ejection alone does.
//! - `round_robin`: the [peer](super::round_robin): in turn, without ejection and retries, with the same deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fusebox::channel::Channel;
use fusebox::discovery::Discovery;
use fusebox::{CommandError, Fusebox};
use fusebox_e2e::callers::{DEADLINE, Now, ONCE, PERIOD, RETRIED, SERVICE, Taken, UNSENT};
use fusebox_e2e::user::GetUserRequest;
use fusebox_e2e::user::user_service_client::UserServiceClient;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Request, Status};

use super::round_robin::RoundRobin;
use super::tally::Tally;

/// So many calls of one lane are in flight at most: twice what there are if none is ever answered.
const MOST: usize = 100;

/// At which instance a call has ended, where that is known, and how.
type Ended = (Option<SocketAddr>, Result<(), String>);

/// The lanes at work.
#[derive(Debug)]
pub struct Lanes {
    retried: Channel,
    once: Channel,
    round_robin: Arc<RoundRobin>,
    tallies: [Arc<Tally>; 3],
}

/// Starts calling.
pub fn start(fusebox: &Fusebox, discovery: &Discovery) -> Arc<Lanes> {
    let channel = |command: &str| {
        // Looking somebody up changes nothing.
        fusebox.discover_in(discovery, SERVICE).command(command).idempotent(|_| true).channel()
    };
    let lanes = Lanes {
        retried: channel(RETRIED),
        once: channel(ONCE),
        round_robin: Arc::new(RoundRobin::new(fusebox.discover_in(discovery, SERVICE).command(ONCE))),
        tallies: Default::default(),
    };
    let [retried, once, in_turn] = lanes.tallies.clone();
    for (command, channel, tally) in [(RETRIED, &lanes.retried, retried), (ONCE, &lanes.once, once)] {
        let (fusebox, channel) = (fusebox.clone(), channel.clone());
        tokio::spawn(steadily(tally, move || by_channel(fusebox.clone(), command, channel.clone())));
    }
    let peer = Arc::clone(&lanes.round_robin);
    tokio::spawn(steadily(in_turn, move || in_its_turn(Arc::clone(&peer))));
    Arc::new(lanes)
}

impl Lanes {
    /// Resolves once something was heard of the service.
    pub async fn ready(&self) {
        self.retried.ready().await;
        self.once.ready().await;
        self.round_robin.ready().await;
    }

    /// The figures of what has ended since they were last taken.
    pub fn take(&self) -> Taken {
        let [retried, once, round_robin] = self.tallies.each_ref().map(|tally| tally.take());
        Taken { retried, once, round_robin }
    }

    /// What is known of the endpoints just now.
    pub fn now(&self) -> Now {
        let outliers = |channel: &Channel| {
            let mut all: Vec<_> = channel.outliers().iter().map(|one| one.endpoint.to_string()).collect();
            all.sort();
            all
        };
        let mut listed: Vec<_> = self.round_robin.addresses().iter().map(ToString::to_string).collect();
        listed.sort();
        Now {
            listed,
            outliers: [outliers(&self.retried), outliers(&self.once)],
            unconfirmed: self.once.unconfirmed(),
        }
    }
}

/// One call each period, whatever became of those before. A call's time counts from when it was due: what this
/// process comes too late to start has waited all the same.
async fn steadily<F, Fut>(tally: Arc<Tally>, call: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Ended> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MOST));
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = ticks.tick().await;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tally.ended(Duration::ZERO, None, Some(UNSENT));
            continue;
        };
        let (tally, call) = (Arc::clone(&tally), call());
        tokio::spawn(async move {
            let (instance, ended) = call.await;
            tally.ended(Instant::now() - due, instance, ended.err().as_deref());
            drop(permit);
        });
    }
}

fn request() -> Request<GetUserRequest> {
    Request::new(GetUserRequest { name: "Ada".to_owned() })
}

fn code(status: &Status) -> String {
    let reason = status.metadata().get("fusebox-reason").and_then(|reason| reason.to_str().ok());
    reason.map_or_else(|| format!("{:?}", status.code()), str::to_owned)
}

async fn by_channel(fusebox: Fusebox, command: &'static str, channel: Channel) -> Ended {
    let mut users = UserServiceClient::new(channel);
    let answer = fusebox.command(command).call(move || async move { users.get_user(request()).await }).await;
    let ended = answer.map(drop).map_err(|error| match error {
        CommandError::Failed(status) => code(&status),
        refused => refused.reason().unwrap_or("failed").to_owned(),
    });
    (None, ended)
}

async fn in_its_turn(peer: Arc<RoundRobin>) -> Ended {
    let Some((address, channel)) = peer.next() else { return (None, Err("no endpoint".to_owned())) };
    let mut request = request();
    request.set_timeout(DEADLINE);
    let ended = match timeout(DEADLINE, UserServiceClient::new(channel).get_user(request)).await {
        Ok(answer) => answer.map(drop).map_err(|status| code(&status)),
        Err(_) => Err("timeout".to_owned()),
    };
    (Some(address), ended)
}
