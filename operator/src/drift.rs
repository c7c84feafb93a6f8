//! What somebody changed behind our back: whose it is hears of it at once, not with the next resync.
//!
//! Each backend is followed in its own way (`etcd/drift.rs`, `consul/drift.rs`, `kubernetes/routes.rs`). What is found
//! only wakes; the pass reads for itself and decides.
//!
//! # Guarantees
//! - A resource is woken at most twice a second, however fast somebody writes.
//! - Our own writes to Consul and etcd wake nobody. One to a route wakes its resource once more.

use fusebox_policy::keys::Ident;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::claims::{self, Claim};
use crate::kubernetes::Guarded;
use crate::kubernetes::watch::Wake;
use crate::pace::{PACE, Pace};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drifted {
    /// Of this resource.
    Of(Ident),
    /// A raw key in etcd.
    Raw(String),
}

/// Where changes are told.
pub type Tell = mpsc::UnboundedSender<Drifted>;

/// Wakes whom a change concerns.
pub async fn wake(mut drifts: mpsc::UnboundedReceiver<Drifted>, wake: Wake, resources: Store<Guarded>) {
    let mut pace = Pace::of(PACE);
    let mut tick = interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let tell = |of: Ident| {
        tracing::debug!(resource = %of, "something of it changed in a backend");
        let _ = wake.send(ObjectRef::new(&of.name).within(&of.namespace));
    };
    loop {
        tokio::select! {
            drifted = drifts.recv() => {
                let Some(drifted) = drifted else { return };
                let concerned = concerned(&resources, drifted);
                concerned.into_iter().filter_map(|of| pace.note(of, Instant::now())).for_each(tell);
            }
            _ = tick.tick() => pace.due(Instant::now()).into_iter().for_each(tell),
        }
    }
}

fn concerned(resources: &Store<Guarded>, drifted: Drifted) -> Vec<Ident> {
    let key = match drifted {
        Drifted::Of(of) => return vec![of],
        Drifted::Raw(key) => Claim::RawKey(key),
    };
    let has = |resource: &Guarded| {
        let of = resource.holder();
        claims::asked(of).contains(&key) || claims::held(of).contains(&key)
    };
    let all = resources.state_filter(has);
    all.iter().map(|of| Ident::new(of.namespace().unwrap_or_default(), of.name_any())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::{reflector, watcher};

    use super::*;

    fn resource(name: &str, spec: &str) -> Guarded {
        serde_saphyr::from_str(&format!(
            "
apiVersion: fusebox.dev/v1alpha1
kind: ResilientService
metadata: {{ name: {name}, namespace: shop, uid: {name} }}
spec: {spec}
"
        ))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_concerned_is_woken_at_most_twice_a_second() {
        let (reader, mut writer) = reflector::store();
        for (name, spec) in [
            ("user", "{ service: { name: user }, config: { etcdKeys: { service.user.timeout: '1' } } }"),
            ("other", "{ service: { name: other } }"),
        ] {
            writer.apply_watcher_event(&watcher::Event::Apply(resource(name, spec)));
        }
        let (tell, drifts) = mpsc::unbounded_channel();
        let (to, mut woken) = mpsc::unbounded_channel();
        tokio::spawn(wake(drifts, to, reader));
        let mut names = async |within: Duration| {
            tokio::time::sleep(within).await;
            std::iter::from_fn(|| woken.try_recv().ok()).map(|of| of.name).collect::<Vec<_>>()
        };
        tell.send(Drifted::Raw("service.user.timeout".into())).unwrap();
        tell.send(Drifted::Raw("service.user.of-nobody".into())).unwrap();
        assert_eq!(names(Duration::from_millis(1)).await, ["user"]);
        for _ in 0..100 {
            tell.send(Drifted::Of(Ident::new("shop", "other"))).unwrap();
        }
        assert_eq!(names(Duration::from_millis(1)).await, ["other"], "at once");
        assert_eq!(names(2 * PACE).await, ["other"], "and once for all the others");
        assert!(names(4 * PACE).await.is_empty());
    }
}
