//! Calling by name while instances and Consul fail: what it costs the callers, beside a peer that calls the same
//! instances in turn, in the same process and at the same time (`e2e/src/bin/fusebox-callers`).
//!
//! 50 calls a second each, with a deadline of one second: the channel under a policy with a retry (`maxAttempts: 2,
//! perTryTimeout: 400ms`), the channel without retries, and the peer. The bounds: [`bounded`].
//!
//! The peer is the control too. A machine that stands still for a second costs calls without any fault: then the peer
//! loses some at instances that were well, and the fault is measured once more.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fusebox_cluster::install::PLATFORM_NAMESPACE;
use fusebox_e2e::callers::{self, DEADLINE, Taken};
use fusebox_e2e::declared::{self, registered};
use fusebox_e2e::{World, etcd, eventually, node, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// The instances that each test begins and ends with.
const INSTANCES: usize = 3;
const USERS: &str = "user-service";
const PORT: u16 = 50051;
/// How often a fault is measured at most, if the machine disturbs that.
const TRIES: usize = 4;
/// How long a fault lasts that only its callers can see.
const FAULT: Duration = Duration::from_secs(20);
/// Within this it is ejected. That takes failures in a row, and the balancer sends few calls where it is slow: the faster
/// the others are, the fewer.
const EJECTED: Duration = Duration::from_mins(2);
const OUTAGE: Duration = Duration::from_mins(1);

/// The callers at work and all well. The tests of this file share them.
async fn stage() -> Result<World> {
    static OPENED: OnceCell<()> = OnceCell::const_new();
    let world = World::open().await?;
    let opened = async {
        // Of a test that ended half-way.
        consul(&world, 1).await?;
        shop::opened().await.map(drop)
    };
    OPENED.get_or_try_init(|| opened).await?;
    callers::deployed(&world).await?;
    calm(&world).await?;
    Ok(world)
}

/// Waits until all is well, and the callers have called for a while without an error.
async fn calm(world: &World) -> Result<()> {
    shop::scale(world, USERS, 3).await?;
    there(world, INSTANCES).await?;
    declared::follows(world).await?;
    callers::follow(world, INSTANCES).await?;
    callers::take(world).await?;
    eventually("the callers have no errors", || async {
        sleep(Duration::from_secs(3)).await;
        let taken = callers::take(world).await?;
        let Taken { retried, once, round_robin } = &taken;
        ensure!(retried.errors() + once.errors() + round_robin.errors() == 0, "{taken}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// What a fault has cost.
struct Cost {
    taken: Taken,
    /// How long a call in a hundred took the peer at instances that were well.
    control: Duration,
}

/// What a fault costs: `fault` begins it, ends it, and says which instances were well all the time.
async fn measured<F>(world: &World, what: &str, fault: impl Fn() -> F) -> Result<Cost>
where
    F: Future<Output = Result<Vec<String>>>,
{
    for _ in 0..TRIES {
        callers::take(world).await?;
        let well = fault().await?;
        // So long the last call that began in it may take.
        sleep(DEADLINE).await;
        let taken = callers::take(world).await?;
        let (disturbed, control) = (taken.disturbed(&well), taken.control_p99(&well));
        let note = if disturbed { " (disturbed: measured again)" } else { "" };
        eprintln!("{what}{note}: {taken}; p99 of its calls of instances that were well: {control:?}");
        if !disturbed {
            return Ok(Cost { taken, control });
        }
        calm(world).await?;
    }
    bail!(
        "{what}: the peer lost calls at instances that were well, {TRIES} times: is this machine overloaded?"
    )
}

/// Without a retry a fault of one of three costs at most so many calls: those of one deadline that were under way there
/// before the first had failed, a third of 50, and a few probes.
const ONE_OF_THREE: u64 = 20;

/// With a retry no call fails, and at most one in a hundred needs half of the deadline, unless it does so at instances
/// that are well. Without, at most `once` fail. The breaker of the command as a whole never opens.
fn bounded(what: &str, cost: &Cost, once: u64) -> Result<()> {
    let Taken { retried, once: without, round_robin } = &cost.taken;
    ensure!(retried.errors() == 0, "{what}, with a retry: {retried}");
    let most = cost.control.max(DEADLINE / 2);
    ensure!(Duration::from_micros(retried.p99_us) <= most, "{what}, with a retry: {retried}, over {most:?}");
    ensure!(without.errors() <= once, "{what}, without a retry at most {once}: {without}");
    let open = without.errors.contains_key("open");
    ensure!(!open, "{what}: the command as a whole was refused: {without}");
    let calls = retried.calls.min(round_robin.calls);
    ensure!(calls > 100, "{what}: so few calls show nothing: {}", cost.taken);
    Ok(())
}

/// The fault was there: who calls in turn has paid for it, and more than the channel.
fn worse(what: &str, cost: &Cost) -> Result<()> {
    let Taken { once, round_robin, .. } = &cost.taken;
    ensure!(round_robin.errors() > once.errors(), "{what}: {once}, round robin: {round_robin}");
    Ok(())
}

async fn listed(world: &World) -> Result<Vec<String>> {
    Ok(callers::now(world).await?.listed)
}

/// An instance, its address, and those of the others.
async fn one(world: &World) -> Result<(Pod, String, Vec<String>)> {
    let pod = shop::pods(world, USERS).await?.into_iter().next().context("no instance")?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).context("no address")?;
    let address = format!("{ip}:{PORT}");
    let others = listed(world).await?.into_iter().filter(|other| *other != address).collect();
    Ok((pod, address, others))
}

/// Waits until an address passes in Consul, or does not.
async fn passes(world: &World, address: &str, is: bool) -> Result<()> {
    eventually(&format!("{address} passes: {is}"), || async {
        let all = registered(world).await?;
        ensure!(all.contains(address) == is, "{all:?} pass");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

/// Waits until exactly so many pods are there, those that are going included.
async fn there(world: &World, pods: usize) -> Result<()> {
    eventually(&format!("{pods} pods"), || async {
        let labels = ListParams::default().labels(&format!("app.kubernetes.io/name={USERS}"));
        let all =
            Api::<Pod>::namespaced(world.client.clone(), fusebox_e2e::world::SHOP).list(&labels).await?;
        ensure!(all.items.len() == pods, "{}", all.items.len());
        Ok::<_, anyhow::Error>(())
    })
    .await
}

#[tokio::test]
async fn t_scaled_up_and_down_costs_no_call() -> Result<()> {
    let world = stage().await?;
    let calm = measured(&world, "calm", || async {
        sleep(Duration::from_secs(5)).await;
        listed(&world).await
    })
    .await?;
    bounded("calm", &calm, 0)?;
    let scaled = measured(&world, "scaled 3, 6, 2", || async {
        shop::scale(&world, USERS, 6).await?;
        declared::follows(&world).await?;
        callers::follow(&world, 6).await?;
        shop::scale(&world, USERS, 2).await?;
        there(&world, 2).await?;
        callers::follow(&world, 2).await?;
        listed(&world).await
    })
    .await?;
    bounded("scaled", &scaled, 0)
}

#[tokio::test]
async fn t_a_killed_instance_costs_what_was_in_flight() -> Result<()> {
    let world = stage().await?;
    let cost = measured(&world, "killed", || async {
        let (pod, address, others) = one(&world).await?;
        let before = shop::incarnation(&world, USERS).await?;
        node::signal(&world, &pod, USERS, "KILL").await?;
        eventually("its container is started again", || async {
            ensure!(shop::incarnation(&world, USERS).await? != before, "not yet");
            Ok::<_, anyhow::Error>(())
        })
        .await?;
        passes(&world, &address, true).await?;
        Ok(others)
    })
    .await?;
    bounded("killed", &cost, ONE_OF_THREE)?;
    worse("killed", &cost)
}

/// Frozen it takes connections and never answers, and passes until its readiness has failed often enough.
#[tokio::test]
async fn t_a_frozen_instance_costs_few_calls_until_it_is_known_and_none_then() -> Result<()> {
    let world = stage().await?;
    let passing = measured(&world, "frozen, and passing", || async {
        let (pod, address, others) = one(&world).await?;
        node::signal(&world, &pod, USERS, "STOP").await?;
        let known = passes(&world, &address, false).await;
        // What ended meanwhile needs none; whether all is well again, `calm` sees.
        node::signal(&world, &pod, USERS, "CONT").await.ok();
        known.map(|()| others)
    })
    .await?;
    calm(&world).await?;
    let (pod, address, others) = one(&world).await?;
    node::signal(&world, &pod, USERS, "STOP").await?;
    let known = async {
        passes(&world, &address, false).await?;
        callers::follow(&world, INSTANCES - 1).await?;
        // So long the last call that it has not answered may take.
        sleep(DEADLINE).await;
        measured(&world, "frozen, and known", || async {
            sleep(Duration::from_secs(5)).await;
            Ok(others.clone())
        })
        .await
    };
    let known = known.await;
    // Whatever was seen, the tests after this one need it. It may have been ended meanwhile.
    node::signal(&world, &pod, USERS, "CONT").await.ok();
    bounded("frozen, and passing", &passing, ONE_OF_THREE)?;
    worse("frozen, and passing", &passing)?;
    bounded("frozen, and known", &known?, 0)
}

/// The kubelet reaches it, so it stays listed: nobody but its callers can know.
#[tokio::test]
async fn t_an_instance_that_is_cut_off_is_ejected() -> Result<()> {
    let world = stage().await?;
    let cost = measured(&world, "cut off", || async {
        let (pod, address, others) = one(&world).await?;
        node::isolate(&world, &pod, PORT, true).await?;
        let seen = cut_off(&world, &address).await;
        node::isolate(&world, &pod, PORT, false).await?;
        seen.map(|()| others)
    })
    .await?;
    bounded("cut off", &cost, ONE_OF_THREE)?;
    worse("cut off", &cost)?;
    // And back in use.
    callers::follow(&world, INSTANCES).await
}

async fn cut_off(world: &World, address: &str) -> Result<()> {
    let (begin, mut ejected) = (Instant::now(), None);
    while Instant::now() - begin < if ejected.is_some() { FAULT } else { EJECTED } {
        let now = callers::now(world).await?;
        ensure!(now.listed.iter().any(|one| one == address), "{address} is not listed: {now:?}");
        if now.outliers.iter().flatten().any(|one| one == address) && ejected.is_none() {
            ejected = Some(Instant::now() - begin);
        }
        sleep(Duration::from_millis(200)).await;
    }
    let ejected = ejected.with_context(|| format!("{address} was not ejected"))?;
    eventually("the report names it", || async {
        let outliers = etcd::reports(world, "callers").await?.into_iter().flat_map(|report| report.outliers);
        let outliers: Vec<_> = outliers.map(|outlier| outlier.endpoint).collect();
        ensure!(outliers.iter().any(|one| one == address), "{outliers:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    eventually("so does the status of who is called, and by whom it is not", || async {
        let status = resource::api(world).get("user").await?.status.unwrap_or_default();
        let outlier = status.outliers.iter().find(|one| one.endpoint == address);
        let outlier = outlier.with_context(|| format!("{:?}", status.outliers))?;
        ensure!(outlier.callers.iter().any(|caller| caller == "shop/callers"), "{outlier:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    eprintln!("ejected after {ejected:?}");
    Ok(())
}

/// Its data is in memory: Consul that comes back knows nobody, until the operator has registered all anew.
#[tokio::test]
async fn t_consul_gone_for_a_minute_and_back_empty_costs_no_call() -> Result<()> {
    let world = stage().await?;
    let gone = measured(&world, "Consul gone for 60 s, and back empty", || async {
        let before: BTreeSet<String> = listed(&world).await?.into_iter().collect();
        let end = Instant::now() + OUTAGE;
        consul(&world, 0).await?;
        let away = without_consul(&world, &before, end).await;
        consul(&world, 1).await?;
        declared::follows(&world).await?;
        callers::follow(&world, INSTANCES).await?;
        away.map(|()| before.into_iter().collect())
    })
    .await?;
    bounded("gone and back", &gone, 0)?;
    resource::until(&world, "user", "Ready", "True").await?;
    Ok(())
}

async fn without_consul(world: &World, before: &BTreeSet<String>, end: Instant) -> Result<()> {
    eventually("the callers' list is not confirmed", || async {
        let now = callers::now(world).await?;
        ensure!(now.unconfirmed.is_some(), "{now:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    while Instant::now() < end {
        let now = callers::now(world).await?;
        let listed: BTreeSet<String> = now.listed.into_iter().collect();
        ensure!(listed == *before && now.unconfirmed.is_some(), "{before:?} were known, {listed:?} are");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn consul(world: &World, replicas: i32) -> Result<()> {
    let count = format!("--replicas={replicas}");
    for args in [["scale", "deployment/consul", &count], ["rollout", "status", "deployment/consul"]] {
        world.run("kubectl", &[&["-n", PLATFORM_NAMESPACE], &args[..]].concat(), None).await?;
    }
    Ok(())
}
