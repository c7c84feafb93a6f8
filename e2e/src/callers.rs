//! The callers that measure what a fault costs those who call by name: the program of that name in this crate, as it
//! runs in the cluster (`callers.yaml`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use fusebox_cluster::Cluster;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::world::SHOP;
use crate::{World, eventually, resource};

/// Whom they call.
pub const SERVICE: &str = "user.service";
/// The command whose policy has a retry.
pub const RETRIED: &str = "get_user";
/// The command without one.
pub const ONCE: &str = "get_user_once";
/// Until when a call must have its answer, in each way of calling: the timeout of both commands.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// Each way of calling begins one call in this time.
pub const PERIOD: Duration = Duration::from_millis(20);

/// The error of a call that was not begun: too many are under way.
pub const UNSENT: &str = "not sent";

const MANIFEST: &str = include_str!("../callers.yaml");
const NAME: &str = "callers";

/// What became of the calls of one way of calling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// All that have ended.
    pub calls: u64,
    /// Those without a good answer, by reason or code.
    pub errors: BTreeMap<String, u64>,
    /// Half of them took no longer, in microseconds from when they were due, errors included.
    pub p50_us: u64,
    /// 99 of a hundred took no longer.
    pub p99_us: u64,
    /// None took longer.
    pub max_us: u64,
    /// The same by the instance that was called, where that is known.
    pub by_instance: BTreeMap<String, Figures>,
}

impl Figures {
    /// How many had no good answer.
    pub fn errors(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: u64| micros.div_ceil(1000);
        write!(f, "{} of {} failed", self.errors(), self.calls)?;
        for (what, n) in &self.errors {
            write!(f, " ({n} {what})")?;
        }
        write!(f, ", p99 {} ms, longest {} ms", millis(self.p99_us), millis(self.max_us))
    }
}

/// What became of the calls since the figures were last taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// By the library's channel, under a policy with a retry.
    pub retried: Figures,
    /// The same under a policy without.
    pub once: Figures,
    /// In turn, without ejection, breaker and retry.
    pub round_robin: Figures,
}

impl Taken {
    /// Whether something beside the fault has cost calls: the peer lost some at an instance that was well, or some were
    /// not begun. The channels have no part in that.
    pub fn disturbed(&self, well: &[String]) -> bool {
        let unsent = |figures: &Figures| figures.errors.contains_key(UNSENT);
        self.control(well).any(|figures| figures.errors() > 0)
            || [&self.retried, &self.once, &self.round_robin].into_iter().any(unsent)
    }

    /// How long a call in a hundred took the peer, at least, at the slowest of the instances that were well.
    pub fn control_p99(&self, well: &[String]) -> Duration {
        Duration::from_micros(self.control(well).map(|figures| figures.p99_us).max().unwrap_or_default())
    }

    fn control(&self, well: &[String]) -> impl Iterator<Item = &Figures> {
        well.iter().filter_map(|instance| self.round_robin.by_instance.get(instance))
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retried, once, round_robin } = self;
        write!(f, "channel: {retried}; channel without retry: {once}; round robin: {round_robin}")
    }
}

/// What they know of the endpoints just now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Now {
    /// Those that are listed.
    pub listed: Vec<String>,
    /// Those that are ejected, by the channel with the retry and by the one without.
    pub outliers: [Vec<String>; 2],
    /// Why the list is not confirmed.
    pub unconfirmed: Option<String>,
}

/// Brings them up, as they were built last, and waits until they call under their policies.
pub async fn deployed(world: &World) -> Result<()> {
    let image = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::open()?;
        let image = cluster.image("fusebox-callers")?;
        cluster.load(std::slice::from_ref(&image)).map(|()| image)
    });
    world.apply(&MANIFEST.replace("@DIGEST@", &image.await??.digest)).await?;
    world.kubectl(&["rollout", "status", "deployment/callers", "--timeout=120s"]).await?;
    resource::until(world, NAME, "Enforced", "True").await?;
    Ok(())
}

/// Takes them away; that they are not there is fine.
pub async fn removed(world: &World) -> Result<()> {
    let objects = "resilientservice/callers,service/callers,deployment/callers";
    let mut args = vec!["delete", "--ignore-not-found"];
    args.extend(objects.split(','));
    world.kubectl(&args).await.map(drop)
}

/// The figures since they were last taken.
pub async fn take(world: &World) -> Result<Taken> {
    asked(world, http::Method::POST, "take").await
}

/// What they know of the endpoints.
pub async fn now(world: &World) -> Result<Now> {
    asked(world, http::Method::GET, "now").await
}

/// Waits until they know exactly so many endpoints, by a list that is confirmed, and eject none.
pub async fn follow(world: &World, endpoints: usize) -> Result<()> {
    eventually(&format!("the callers know {endpoints} good endpoints"), || async {
        let now = now(world).await?;
        let good = now.outliers.iter().all(Vec::is_empty) && now.unconfirmed.is_none();
        ensure!(now.listed.len() == endpoints && good, "{now:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

async fn asked<T: DeserializeOwned>(world: &World, method: http::Method, what: &str) -> Result<T> {
    let path = format!("/api/v1/namespaces/{SHOP}/services/{NAME}:http/proxy/{what}");
    let request = http::Request::builder().method(method).uri(path).body(Vec::new())?;
    Ok(world.client.request(request).await?)
}
