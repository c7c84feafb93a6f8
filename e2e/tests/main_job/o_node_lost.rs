//! A worker falls silent with its instances. Frozen is the worker alone: the operator, Consul, etcd, Traefik, the caller
//! and two of the four instances are moved to the control plane before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fusebox_cluster::install::{OPERATOR_NAMESPACE, PLATFORM_NAMESPACE};
use fusebox_e2e::declared::{self, Foreign, SERVICE};
use fusebox_e2e::world::SHOP;
use fusebox_e2e::{World, consul, etcd, eventually, gateway, long, node, resource, shop};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep};

/// For how long Enforced may be True beside a listed ready instance that is silent: twice the lease of a report.
const BOUND: Duration = Duration::from_secs(20);

/// What a caller waits at most: its command's declared second, and as much again as two busy cores take.
const CALL: Duration = Duration::from_secs(5);

/// Nothing of ours is on the worker.
async fn cleared(world: &World, worker: &str) -> Result<()> {
    node::cordon(world, worker, true).await?;
    for namespace in [PLATFORM_NAMESPACE, OPERATOR_NAMESPACE, SHOP, "kube-system"] {
        let pods = Api::<Pod>::namespaced(world.client.clone(), namespace);
        // DNS is everybody's; what else is there belongs to the node.
        let labels = if namespace == "kube-system" { "k8s-app=kube-dns" } else { "" };
        let on_it = ListParams::default().fields(&format!("spec.nodeName={worker}")).labels(labels);
        let mut moved = false;
        for pod in pods.list(&on_it).await? {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
            moved = true;
        }
        if moved {
            let args = [
                "-n",
                namespace,
                "wait",
                "--for=condition=Available",
                "deployment",
                "--all",
                "--timeout=120s",
            ];
            world.run("kubectl", &args, None).await?;
        }
    }
    shop::scale(world, "user-service", 2).await
}

/// An instance as its slice has it.
struct Listed {
    uid: String,
    node: String,
    address: String,
    ready: bool,
}

async fn listed(world: &World) -> Result<Vec<Listed>> {
    let labels = ListParams::default().labels("kubernetes.io/service-name=user-service");
    let slices = Api::<EndpointSlice>::namespaced(world.client.clone(), SHOP).list(&labels).await?;
    let all = slices.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
    let listed = all.map(|endpoint| {
        Some(Listed {
            uid: endpoint.target_ref?.uid?,
            node: endpoint.node_name?,
            address: format!("{}:50051", endpoint.addresses.first()?),
            ready: endpoint.conditions.is_some_and(|conditions| conditions.ready == Some(true)),
        })
    });
    listed.collect::<Option<_>>().context("an endpoint without pod, node or address")
}

/// Reads everything again and again, and holds it to what must be so at any time.
struct Watch<'a> {
    world: &'a World,
    worker: &'a str,
    /// Of the instances beside the worker.
    stay: BTreeSet<String>,
    /// Since when Enforced is True beside a silent instance.
    untrue: Option<Instant>,
    longest: Duration,
    looks: usize,
}

impl Watch<'_> {
    /// The instances on the worker: how many are listed as ready, registered, passing.
    async fn look(&mut self) -> Result<[usize; 3]> {
        let listed = listed(self.world).await?;
        let keys = etcd::range(self.world, &etcd::keys().reports(&etcd::ident("user"))).await?;
        let reporting = |uid: &str| keys.keys().any(|key| key.ends_with(uid));
        let silent = listed.iter().any(|one| one.ready && !reporting(&one.uid));
        let user = resource::api(self.world).get("user").await?;
        let enforced = resource::condition(&user, "Enforced").is_ok_and(|one| one.status == "True");
        let now = Instant::now();
        self.untrue = (silent && enforced).then(|| self.untrue.unwrap_or(now));
        let untrue = self.untrue.map_or(Duration::ZERO, |since| now - since);
        self.longest = self.longest.max(untrue);
        ensure!(untrue <= BOUND, "Enforced is True for {untrue:?} beside a ready instance that is silent");
        let there: BTreeMap<String, bool> = consul::instances(self.world, SERVICE)
            .await?
            .into_iter()
            .map(|instance| (instance.address, instance.passing))
            .collect();
        for address in &self.stay {
            ensure!(there.get(address) == Some(&true), "{address}, elsewhere, does not pass: {there:?}");
        }
        self.looks += 1;
        let lost: Vec<&Listed> = listed.iter().filter(|one| one.node == self.worker).collect();
        let count = |is: &dyn Fn(&&&Listed) -> bool| lost.iter().filter(is).count();
        Ok([
            count(&|one| one.ready),
            count(&|one| there.contains_key(&one.address)),
            count(&|one| there.get(&one.address) == Some(&true)),
        ])
    }

    async fn until(&mut self, what: &str, mut is: impl FnMut([usize; 3]) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_mins(3);
        loop {
            let seen = self.look().await?;
            if is(seen) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "never: {what}; ready, registered, passing on the worker: {seen:?}"
            );
            sleep(Duration::from_millis(300)).await;
        }
    }
}

/// Calls without a pause: how many, how many of them got the fallback, how long the longest took.
async fn calls(world: Arc<World>, stop: Arc<AtomicBool>) -> Result<(usize, usize, Duration)> {
    let (mut all, mut fallbacks, mut longest) = (0, 0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        // Any status but a good one is an error of the caller's own.
        let hello = gateway::hello(&world, "Ada").await?;
        (all, fallbacks) = (all + 1, fallbacks + usize::from(hello.fallback));
        longest = longest.max(Instant::now() - start);
        sleep(Duration::from_millis(50)).await;
    }
    Ok((all, fallbacks, longest))
}

async fn lost_and_found(world: &Arc<World>, worker: &str) -> Result<()> {
    let stay: BTreeSet<String> =
        listed(world).await?.into_iter().filter(|one| one.node != worker).map(|one| one.address).collect();
    let mut watch = Watch { world, worker, stay, untrue: None, longest: Duration::ZERO, looks: 0 };
    ensure!(watch.look().await? == [2, 2, 2] && watch.stay.len() == 2, "two on each node to begin with");
    let stop = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(calls(world.clone(), stop.clone()));

    let begin = Instant::now();
    node::pause(world, worker).await?;
    let lost = async {
        watch.until("it stops passing", |[_, _, passing]| passing == 0).await?;
        let noticed = Instant::now() - begin;
        // An edit that the lost instances do not hear of.
        resource::patch(world, "user", json!({ "inbound": { "timeout": "1200ms" } })).await?;
        resource::until(world, "user", "Enforced", "True").await?;
        shop::closed(world).await?;
        for _ in 0..50 {
            let hello = gateway::hello(world, "Ada").await?;
            ensure!(!hello.fallback, "it is called still: {hello:?}");
        }
        let [ready, registered, _] = watch.look().await?;
        ensure!(ready == 0, "{ready} of a silent node are ready");
        anyhow::Ok((noticed, registered))
    };
    let lost = lost.await;
    node::unpause(world, worker).await?;
    let (noticed, registered) = lost?;
    let back = Instant::now();
    watch.until("they pass again", |seen| seen == [2, 2, 2]).await?;
    let back = Instant::now() - back;
    stop.store(true, Ordering::Relaxed);
    let (all, fallbacks, longest) = calls.await??;
    ensure!(longest <= CALL, "a call of the caller took {longest:?}");
    eprintln!(
        "critical {noticed:?} after the freeze ({registered} still registered), passing again {back:?} after it; True \
         beside a silent instance for {:?} in {} looks; {fallbacks} of {all} calls got the fallback, the longest took \
         {longest:?}",
        watch.longest, watch.looks
    );
    Ok(())
}

#[tokio::test]
async fn o_a_worker_falls_silent_and_comes_back() -> Result<()> {
    if !long("a worker node paused") {
        return Ok(());
    }
    let world = Arc::new(shop::opened().await?);
    let (control_plane, worker) = (node::control_plane(&world).await?, node::worker(&world).await?);
    let tested = async {
        cleared(&world, &worker).await?;
        node::cordon(&world, &worker, false).await?;
        node::cordon(&world, &control_plane, true).await?;
        shop::scale(&world, "user-service", 4).await?;
        node::cordon(&world, &control_plane, false).await?;
        declared::follows(&world).await?;
        let foreign = Foreign::register(&world).await?;
        resource::until(&world, "user", "Enforced", "True").await?;
        shop::closed(&world).await?;
        lost_and_found(&world, &worker).await?;
        shop::scale(&world, "user-service", 2).await?;
        declared::again(&world, foreign).await
    };
    let tested = tested.await;
    // Whatever was seen, the tests after this one need both nodes.
    for node in [&control_plane, &worker] {
        node::cordon(&world, node, false).await?;
    }
    eventually("the worker is ready", || async {
        let ready = ["wait", "--for=condition=Ready", "node", &worker, "--timeout=10s"];
        world.run("kubectl", &ready, None).await
    })
    .await?;
    tested
}
