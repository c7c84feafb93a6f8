//! Wires everything together, and ends it.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fusebox_policy::keys::Keys;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::admin;
use crate::config::{Config, LogArgs};
use crate::consul::{Consul, Http};
use crate::deadman::Keeper;
use crate::drift;
use crate::epoch::{Fenced, Signals};
use crate::etcd::{Changed, Etcd, Reports, follow_drift};
use crate::kubernetes::herald::tell_of_dead_man;
use crate::kubernetes::home::home;
use crate::kubernetes::lease::KubeLease;
use crate::kubernetes::routes::{self, Kept};
use crate::kubernetes::traefik::Traefik;
use crate::kubernetes::watch::{Wake, start, wake_all, wake_called};
use crate::kubernetes::{Cluster, Guarded, Stores};
use crate::leader::decide::identity;
use crate::leader::{Clock, Elector, End, Leadership, supervise};
use crate::metrics::Metrics;
use crate::ports::{ConsulCatalog, EpochStore, PolicyStore};
use crate::queue;
use crate::readiness::Readiness;
use crate::reconcile::deletions::Deletions;
use crate::reconcile::keep::keep;
use crate::reconcile::memory::Memory;
use crate::reconcile::unreadable::{self, Unreadable};
use crate::reconcile::{Context, Next, reconcile};
use crate::sweep;
use crate::takeover::{self, PATIENCE};

/// How long effects in flight may take to finish at the end.
pub const GRACE: Duration = Duration::from_millis(4500);

const KINDS: &str = "the first list of ResilientService, Service and EndpointSlice";
const LEASE: &str = "a look at the Lease";

/// Runs until SIGTERM, or until another replica or another operator takes over.
pub async fn run(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log)?;
    config.etcd.check()?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is there already");
    }
    let stop = stop_signal("effects in flight finish, nothing is deregistered")?;
    let settings = config.settings();
    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::waiting_for([KINDS, LEASE]));
    let leadership = Arc::new(Leadership::new(Clock::start()));
    let client = Client::try_default().await.context("finding the Kubernetes cluster")?;
    admin::start(config.listen, readiness.clone(), Some(leadership.clone()), metrics.clone()).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = config.cluster,
        consul = config.consul,
        etcd = config.etcd.etcd.join(","),
        "the Fusebox operator starts"
    );

    let me = identity(&config.name, config.pod.as_deref(), &uuid::Uuid::new_v4().to_string());
    let namespace = config.namespace.as_deref().unwrap_or(client.default_namespace());
    let lease = KubeLease::new(client.clone(), namespace, &config.lease);
    let elector = Arc::new(Elector::new(lease, &me, leadership.clone(), metrics.clone()));
    let signals = Arc::new(Signals::new(elector.clone()));
    let (wake, woken) = mpsc::unbounded_channel();
    let stores = start(&client, &wake);
    let reports = Reports::default();
    let consul = Arc::new(Consul::new(Http::new(&config.consul())?, &config.cluster));
    // At once, and whatever becomes of Kubernetes: what is registered is to stay.
    let (tell, leads) = watch::channel(false);
    let standing = leadership.clone();
    tokio::spawn(async move { standing.follow(tell).await });
    let keeper = Keeper::new(consul.clone(), metrics.dead_man.clone(), config.consul_dead_man_ttl);
    tokio::spawn(tell_of_dead_man(client.clone(), config.name.clone(), keeper.late()));
    tokio::spawn(keeper.run(leads));
    let prefixes: Vec<String> = settings.allowed.values().flatten().cloned().collect();
    let etcd = Arc::new(Etcd::new(config.etcd.config(), &config.cluster, prefixes.clone(), reports.clone()));
    let (drifted, drifts) = mpsc::unbounded_channel();
    tokio::spawn(drift::wake(drifts, wake.clone(), stores.resources.clone()));
    tokio::spawn(consul.clone().follow_drift(drifted.clone()));
    let kept = Kept::default();
    tokio::spawn(routes::follow_drift(client.clone(), kept.clone(), drifted.clone()));
    let (link, keys, intents) = (config.etcd.config(), Keys::new(&config.cluster), etcd.intents());
    tokio::spawn(follow_drift(link, keys, prefixes, intents, drifted));
    for back in [consul.back(), etcd.back()] {
        tokio::spawn(wake_on_return(back, wake.clone(), stores.clone()));
    }
    let (asking_consul, asking_etcd) = (consul.clone(), etcd.clone());
    tokio::spawn(async move { tokio::join!(asking_consul.keep_asking(), asking_etcd.keep_asking()) });
    let consul: Arc<dyn ConsulCatalog> = consul;
    let etcd: Arc<dyn PolicyStore> = etcd;
    let context = Arc::new(Context {
        settings,
        cluster: Arc::new(Cluster::new(client.clone(), stores.clone(), &config.name)),
        consul: Fenced::new(consul, "Consul", &me, signals.clone()),
        etcd: Fenced::new(etcd, "etcd", &me, signals.clone()),
        routes: Arc::new(Traefik::new(client.clone(), kept)),
        metrics,
        memory: Memory::default(),
        deletions: Deletions::default(),
    });
    tokio::spawn(wake_on_reports(
        config.etcd.config(),
        Keys::new(&config.cluster),
        reports.clone(),
        wake.clone(),
        stores.clone(),
    ));
    tokio::spawn(wake_on_resync(signals.clone(), wake.clone(), stores.clone()));
    let (resign, resigning) = watch::channel(false);
    let mut stopping = stop.clone();
    let work = async {
        // Before the first epoch, which says it.
        tokio::select! {
            home = home(&client) => { let _ = signals.home.set(home); }
            _ = stopping.wait_for(|stop| *stop) => return Ok(End::Drained),
        }
        tokio::select! {
            end = work(context, stores, readiness, leadership, reports, (wake, woken), stop) => end,
            why = deposed(&signals) => bail!("{why}; this process ends and writes nothing more"),
        }
    };
    supervise(async move { elector.run(resigning).await }, resign, work).await?;
    tracing::info!("ended; what is registered, routed and published stays");
    Ok(())
}

/// Waits for the caches and for the lead, takes the epochs, reconciles until `stop`.
async fn work(
    context: Arc<Context>,
    stores: Stores,
    readiness: Arc<Readiness>,
    leadership: Arc<Leadership>,
    reports: Reports,
    (wake, mut woken): (Wake, mpsc::UnboundedReceiver<ObjectRef<Guarded>>),
    stop: watch::Receiver<bool>,
) -> anyhow::Result<End> {
    let mut stopping = stop.clone();
    let ready = async {
        // Nothing is decided on half a picture: a missing Service must be missing, not just not seen yet.
        stores.first_lists().await?;
        readiness.reached(KINDS);
        leadership.known().await;
        readiness.reached(LEASE);
        tokio::select! {
            () = leadership.leads() => {}
            // A standby keeps its caches and lets go of what would be worked on.
            () = async {
                while woken.recv().await.is_some() {}
                std::future::pending::<()>().await;
            } => {}
        }
        let _ = tokio::join!(
            take_epoch(context.clone(), |context| &context.consul),
            take_epoch(context.clone(), |context| &context.etcd),
            timeout(PATIENCE, reports.first()),
        );
        anyhow::Ok(())
    };
    tokio::select! {
        ready = ready => ready.context("a watch ended")?,
        _ = stopping.wait_for(|stop| *stop) => return Ok(End::Drained),
    }
    tracing::info!("the work begins");
    wake_all(&wake, &stores.resources);
    let (sweeping, until) = (context.clone(), stop.clone());
    tokio::spawn(async move { sweep::run(&sweeping, until).await });
    let controller = queue::serve(stores.resources, woken, stop.clone(), pass, context);
    let mut stopping = stop;
    tokio::select! {
        () = controller => Ok(End::Drained),
        () = async {
            let _ = stopping.wait_for(|stop| *stop).await;
            tokio::time::sleep(GRACE).await;
        } => {
            tracing::warn!("effects in flight did not finish in time");
            Ok(End::CutOff)
        }
    }
}

async fn pass(resource: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Infallible> {
    let start = Instant::now();
    let took = || Instant::now().duration_since(start);
    let now = Timestamp::now();
    let done = match &resource.0 {
        Ok(resource) => reconcile(&context, &Arc::new(resource.clone()), now).await,
        Err(unreadable) => match unreadable::judge(unreadable) {
            Unreadable::Dying(resource) => reconcile(&context, &Arc::new(resource), now).await,
            Unreadable::Left(resource, notice) => keep(&context, &Arc::new(resource), &notice).await,
        },
    };
    context.metrics.reconciled(done.outcome, took());
    Ok(match done.next {
        Next::After(wait) => Action::requeue(wait),
        Next::OnChange => Action::await_change(),
    })
}

/// Takes the epoch of a store; if it does not answer in time, goes on trying behind the scenes.
async fn take_epoch<S: EpochStore + ?Sized + 'static>(
    context: Arc<Context>,
    of: impl Fn(&Context) -> &Fenced<S> + Send + Sync + 'static,
) {
    if !takeover::take(of(&context)).await {
        tokio::spawn(async move { takeover::keep_taking(of(&context)).await });
    }
}

async fn wake_on_reports(
    etcd: fusebox::etcd::EtcdConfig,
    keys: Keys,
    reports: Reports,
    wake: Wake,
    stores: Stores,
) {
    let (changed, mut told) = mpsc::unbounded_channel();
    tokio::spawn(reports.follow(etcd, keys, changed));
    while let Some(change) = told.recv().await {
        match change {
            Changed::One(of) => {
                let _ = wake.send(ObjectRef::new(&of.name).within(&of.namespace));
            }
            Changed::Called(name) => wake_called(&wake, &stores, name),
            Changed::All => wake_all(&wake, &stores.resources),
        }
    }
}

async fn wake_on_resync(signals: Arc<Signals>, wake: Wake, stores: Stores) {
    loop {
        signals.resync.notified().await;
        tracing::info!("everything is looked at again");
        wake_all(&wake, &stores.resources);
    }
}

/// How often at most a backend that comes and goes has everything looked at.
pub const RETURNS: Duration = Duration::from_secs(10);

/// Whoever was refused while a backend was away need not wait out a back-off. How many of them ask it at once is bounded
/// by the queue.
async fn wake_on_return(mut back: watch::Receiver<u64>, wake: Wake, stores: Stores) {
    while back.changed().await.is_ok() {
        wake_all(&wake, &stores.resources);
        tokio::time::sleep(RETURNS).await;
    }
}

async fn deposed(signals: &Signals) -> String {
    let mut deposed = signals.deposed.subscribe();
    // The sender lives as long as the signals.
    let why = deposed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or_default()
}

/// True once the process was asked to end, which it says with `what_then`. A second signal ends it on the spot.
pub fn stop_signal(what_then: &'static str) -> anyhow::Result<watch::Receiver<bool>> {
    let (stop, stopping) = watch::channel(false);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if *stop.borrow() {
                std::process::exit(130);
            }
            tracing::info!("asked to end: {what_then}");
            stop.send_replace(true);
        }
    });
    Ok(stopping)
}

/// Logs to standard error from now on.
pub fn init_logs(config: &LogArgs) -> anyhow::Result<()> {
    // The runtime's spans repeat what our own lines say.
    let filter = format!("kube_runtime=warn,{}", config.log);
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("--log")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        logs.json().flatten_event(true).init();
    } else {
        logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_is_back_wakes_everybody_and_one_that_flaps_not_at_every_turn() {
        let (resources, mut writer) = reflector::store();
        for name in ["a", "b"] {
            let text = format!("{{ metadata: {{ name: {name}, namespace: shop }}, spec: {{}} }}");
            writer.apply_watcher_event(&watcher::Event::Apply(serde_saphyr::from_str(&text).unwrap()));
        }
        let stores = Stores::new(resources, reflector::store().0, reflector::store().0);
        let (back, seen) = watch::channel(0);
        let (wake, mut woken) = mpsc::unbounded_channel();
        tokio::spawn(wake_on_return(seen, wake, stores));
        let mut woken_within = async |time| {
            sleep(time).await;
            std::iter::from_fn(|| woken.try_recv().ok()).count()
        };
        assert_eq!(woken_within(RETURNS).await, 0);
        back.send_replace(1);
        assert_eq!(woken_within(Duration::from_millis(1)).await, 2);
        back.send_replace(2);
        sleep(Duration::from_millis(1)).await;
        back.send_replace(3);
        assert_eq!(woken_within(RETURNS / 2).await, 0, "they were woken just now");
        assert_eq!(woken_within(RETURNS).await, 2, "what came meanwhile is not lost");
        assert_eq!(woken_within(RETURNS * 2).await, 0);
    }
}
