//! What a process sees of the cluster is old, has gaps, or lacks what came and went: what it does then is mended
//! as soon as it sees the newest, and nothing of others is touched meanwhile.

use fusebox_policy::keys::Ident;

use super::scene::{FULL, Scene, user};
use super::workloads::{EDITED, State, fresh, renamed, rival, second};
use crate::world::Cache;

type Change = fn(&Scene);

/// One after the other, from our own scenarios.
const HISTORY: &[(&str, Change)] = &[
    ("create", |scene| scene.put(&user(), FULL)),
    ("another that wants the same", |scene| scene.put(&second(), &rival())),
    ("endpoints", |scene| scene.scale(&[("b", false), ("c", true)])),
    ("rename", |scene| scene.put(&user(), &renamed())),
    ("edit", |scene| scene.put(&user(), EDITED)),
    ("the Service is another", |scene| {
        scene.service("user-service");
        scene.scale(&[("d", true)]);
    }),
    ("delete", |scene| scene.delete(&user())),
    ("create again", |scene| {
        scene.put(&user(), &renamed());
        scene.has_uid(&user(), "cr-again");
    }),
    ("the other goes", |scene| scene.delete(&second())),
    ("endpoints again", |scene| scene.scale(&[("d", true), ("e", true)])),
];

impl Scene {
    pub fn has_uid(&self, of: &Ident, uid: &str) {
        let mut all = self.cluster.resources.try_lock().unwrap();
        all.get_mut(of).unwrap().metadata.uid = Some(uid.to_owned());
    }

    /// Deleted with its finalizer taken off by hand, and created again: another of the same name.
    pub fn replace(&self, of: &Ident, spec: &str) {
        let old = self.cluster.resources.try_lock().unwrap().remove(of).unwrap();
        self.put(of, spec);
        self.has_uid(of, &format!("{}-again", old.metadata.uid.unwrap()));
    }

    pub fn see(&self, cache: Option<Cache>) {
        *self.cluster.cache.try_lock().unwrap() = cache;
    }
}

/// Whose view is old.
#[derive(Clone, Copy, Debug)]
enum Process {
    /// It has just started.
    Next,
    /// It has seen the newest and had nothing to do.
    Same,
    /// It did what there was to do.
    Busy,
}

fn start() -> Scene {
    let scene = Scene::new();
    scene.foreign();
    scene.service("two");
    scene.scale_of("two", &[("t", true)]);
    scene.scale(&[("a", true), ("b", true)]);
    scene
}

#[tokio::test(start_paused = true)]
async fn an_old_view_after_newer_effects_does_no_lasting_harm() {
    let (mut views, mut passes) = (0, 0);
    let newest = start();
    let mut history = vec![newest.cluster.now()];
    let mut disturbed = Vec::new();
    for (name, change) in HISTORY {
        change(&newest);
        let unapplied = newest.cluster.now();
        newest.settle_all().await;
        let wanted = State::of(&newest);
        for (at, old) in history.iter().enumerate() {
            for process in [Process::Next, Process::Same, Process::Busy] {
                let mut scene = newest.copy();
                match process {
                    Process::Next => scene.restart(),
                    Process::Same => scene.settle_all().await,
                    Process::Busy => {
                        scene.settle_all().await;
                        for resource in scene.cluster.now().resources.values() {
                            scene.context.memory.exists(resource).await;
                        }
                    }
                }
                scene.see(Some(old.clone()));
                for of in old.resources.keys().chain(old.resources.keys()) {
                    let before = State::of(&scene);
                    scene.pass(of).await;
                    passes += 1;
                    let now = scene.get(of);
                    if now.is_none_or(|now| now.metadata.uid != old.resources[of].metadata.uid) {
                        State::of(&scene).must_be(&before, &format!("{name}: {of} as seen {at} is gone"));
                    }
                    let shared = scene.shared();
                    if !shared.is_empty() {
                        disturbed.push(format!("{name}, seen {at}, {process:?}: {shared:?}"));
                    }
                }
                assert!(scene.foreign_is_untouched(), "{name}");
                scene.see(None);
                scene.settle_all().await;
                State::of(&scene).must_be(&wanted, &format!("{name}, as seen {at}, {process:?}"));
                assert!(scene.is_silent().await, "{name}");
                views += 1;
            }
        }
        history.extend([unapplied, newest.cluster.now()]);
    }
    println!("old views: {views}, with {passes} passes on them, {} of which share a claim", disturbed.len());
    assert!(disturbed.is_empty(), "{disturbed:#?}");
}

#[tokio::test(start_paused = true)]
async fn every_subset_of_changes_may_be_unseen() {
    let last = start();
    for (_, change) in HISTORY {
        change(&last);
        // A deletion ends only where somebody sees it.
        last.settle_all().await;
    }
    let wanted = fresh(&last).await.planes();
    let subsets = 1_u32 << (HISTORY.len() - 1);
    let mut played = 0;
    for seen in 0..subsets {
        let scene = start();
        for (n, (name, change)) in HISTORY.iter().enumerate() {
            if *name == "create again" && scene.get(&user()).is_some() {
                // It was never seen that it went.
                scene.replace(&user(), &renamed());
                scene.has_uid(&user(), "cr-again");
            } else {
                change(&scene);
            }
            if seen & (1 << n) != 0 {
                scene.settle_all().await;
                assert!(scene.shared().is_empty(), "{seen:b} {name}: {:?}", scene.shared());
            }
        }
        scene.settle_all().await;
        State::of(&scene).planes().must_be(&wanted, &format!("{seen:b}"));
        assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{seen:b}");
        played += 1;
    }
    println!("subsets of changes seen: {played}");
}

#[tokio::test(start_paused = true)]
async fn another_of_the_same_name_inherits_nothing() {
    let keys = FULL.replace("'1000' }", "'1000', service.user.limit: '5' }");
    let invalid = FULL.replace("timeout: 250ms", "timeout: 0s");
    let specs = [FULL, EDITED, &renamed(), &rival(), &keys, "service: { name: user-service }", &invalid];
    let mut played = 0;
    for old in specs {
        for new in specs {
            for another in [false, true] {
                let mut scene = start();
                scene.put(&user(), old);
                scene.settle_all().await;
                scene.replace(&user(), new);
                if another {
                    scene.restart();
                }
                scene.settle_all().await;
                let what = format!("{old}\nthen {new}\nanother: {another}");
                State::of(&scene).must_be(&fresh(&scene).await, &what);
                assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{what}");
                played += 1;
            }
        }
    }
    println!("another of the same name, unseen: {played}");
}
