//! Resources that want the same thing at the same time, their passes interleaved: no two of them are ever in
//! Consul, Traefik or etcd with one claim.

use fusebox_policy::keys::Ident;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::scene::{Scene, user};
use super::steps::{Pass, pass, steps};
use super::workloads::second;

fn elsewhere() -> Ident {
    Ident::new("other", "user")
}

/// What one of the two does.
struct Side {
    of: fn() -> Ident,
    then: fn(&Scene),
}

struct Race {
    name: &'static str,
    before: fn(&Scene),
    first: Side,
    second: Side,
}

const A: &str = "{ service: { name: user-service, port: grpc }, consul: { serviceName: a } }";
const B: &str = "{ service: { name: two, port: grpc }, consul: { serviceName: b } }";
const A_ROUTE: &str =
    "{ service: { name: user-service, port: grpc }, gateway: { routes: [{ host: h.io, pathPrefix: /x }] } }";
const B_ROUTE: &str =
    "{ service: { name: two, port: grpc }, gateway: { routes: [{ host: h.io, pathPrefix: /x/ }] } }";
const C_ROUTE: &str =
    "{ service: { name: far, port: grpc }, gateway: { routes: [{ host: h.io, pathPrefix: /y }] } }";
const A_KEY: &str = "{ service: { name: user-service }, config: { etcdKeys: { service.user.k: a } } }";
const B_KEY: &str = "{ service: { name: two }, config: { etcdKeys: { service.user.k: b } } }";
const A_THREE: &str = "{ service: { name: three, port: grpc }, consul: { serviceName: a } }";
const B_THREE: &str = "{ service: { name: three, port: grpc }, consul: { serviceName: b } }";

fn both(scene: &Scene) {
    scene.put(&user(), A);
    scene.put(&second(), B);
}

fn and_elsewhere(scene: &Scene) {
    both(scene);
    scene.put(&elsewhere(), "{ service: { name: far, port: grpc }, consul: { serviceName: c } }");
}

fn a_wants_n(scene: &Scene) {
    scene.put(&user(), &A.replace("serviceName: a", "serviceName: n"));
}

fn b_wants_n(scene: &Scene) {
    scene.put(&second(), &B.replace("serviceName: b", "serviceName: n"));
}

/// Of the same second: the UID decides, and that of the one that is seen later is the lower one.
fn born_at_once(scene: &Scene, of: &Ident, spec: &str) {
    scene.put(of, spec);
    let mut all = scene.cluster.resources.try_lock().unwrap();
    all.get_mut(of).unwrap().metadata.creation_timestamp = Some(Time(Timestamp::from_second(5).unwrap()));
}

const RACES: &[Race] = &[
    Race {
        name: "a Consul name, the younger first",
        before: both,
        first: Side { of: second, then: b_wants_n },
        second: Side { of: user, then: a_wants_n },
    },
    Race {
        name: "a Consul name, the older first",
        before: both,
        first: Side { of: user, then: a_wants_n },
        second: Side { of: second, then: b_wants_n },
    },
    Race {
        name: "a host and path",
        before: both,
        first: Side { of: second, then: |scene| scene.put(&second(), B_ROUTE) },
        second: Side { of: user, then: |scene| scene.put(&user(), A_ROUTE) },
    },
    Race {
        name: "a host of two namespaces",
        before: and_elsewhere,
        first: Side { of: elsewhere, then: |scene| scene.put(&elsewhere(), C_ROUTE) },
        second: Side { of: user, then: |scene| scene.put(&user(), A_ROUTE) },
    },
    Race {
        name: "a raw key",
        before: both,
        first: Side { of: second, then: |scene| scene.put(&second(), B_KEY) },
        second: Side { of: user, then: |scene| scene.put(&user(), A_KEY) },
    },
    Race {
        name: "a Service",
        before: both,
        first: Side { of: second, then: |scene| scene.put(&second(), B_THREE) },
        second: Side { of: user, then: |scene| scene.put(&user(), A_THREE) },
    },
    Race {
        name: "two that are new",
        before: |_| {},
        first: Side {
            of: second,
            then: |scene| born_at_once(scene, &second(), &B.replace("serviceName: b", "serviceName: n")),
        },
        second: Side {
            of: user,
            then: |scene| born_at_once(scene, &user(), &A.replace("serviceName: a", "serviceName: n")),
        },
    },
    Race {
        name: "what the other sets free",
        before: |scene| {
            a_wants_n(scene);
            b_wants_n(scene);
        },
        first: Side { of: user, then: |scene| scene.put(&user(), A) },
        second: Side { of: second, then: |_| {} },
    },
    Race {
        name: "what the other sets free as it goes",
        before: |scene| {
            a_wants_n(scene);
            b_wants_n(scene);
        },
        first: Side { of: user, then: |scene| scene.delete(&user()) },
        second: Side { of: second, then: |_| {} },
    },
    Race {
        name: "names that are swapped",
        before: both,
        first: Side {
            of: user,
            then: |scene| scene.put(&user(), &A.replace("serviceName: a", "serviceName: b")),
        },
        second: Side {
            of: second,
            then: |scene| scene.put(&second(), &B.replace("serviceName: b", "serviceName: a")),
        },
    },
];

async fn prepared(before: fn(&Scene)) -> Scene {
    let scene = Scene::new();
    scene.foreign();
    for (name, instance) in [("two", "t"), ("three", "u")] {
        scene.service(name);
        scene.scale_of(name, &[(instance, true)]);
    }
    scene.scale(&[("a", true)]);
    let far = scene.cluster.shown().services[&Ident::new("shop", "two")].clone();
    let mut far = far;
    far.0.name = "far".into();
    scene.cluster.services.try_lock().unwrap().insert(Ident::new("other", "far"), far);
    before(&scene);
    scene.settle_all().await;
    scene
}

/// A process that took its epochs, as at its start, and waits at each operation from now on.
async fn started(base: &Scene) -> Scene {
    let scene = base.copy();
    assert!(scene.context.consul.fence().await.is_ok() && scene.context.etcd.fence().await.is_ok());
    scene.crash.pace(true);
    scene
}

/// Goes on until it waited `n` times, and looks after each write whether something is shared.
async fn watched(pass: &mut Pass<'_>, n: usize, scene: &Scene, found: &mut Vec<String>) -> bool {
    for _ in 0..n {
        let before = scene.crash.writes();
        if steps(pass, 1).await {
            return true;
        }
        if scene.crash.writes() != before {
            found.extend(scene.shared());
        }
    }
    false
}

const END: usize = 1000;

#[tokio::test(start_paused = true)]
async fn no_two_passes_at_once_apply_one_claim() {
    let (mut schedules, mut wrong) = (0, Vec::new());
    // How far the first goes on in between.
    let turns: &[usize] =
        if fusebox_processes::long() { &[0, 1, 2, 3, 4, 5, 6, 8, 10, 12] } else { &[0, 2, 5] };
    for race in RACES {
        let base = prepared(race.before).await;
        let mut of_this = 0;
        'first: for i in 0.. {
            'second: for j in 1.. {
                for &k in turns {
                    let scene = started(&base).await;
                    let now = scene.later().await;
                    let mut found = Vec::new();
                    (race.first.then)(&scene);
                    let mut first = pass(&scene.context, &scene, &(race.first.of)(), now);
                    if watched(&mut first, i, &scene, &mut found).await {
                        break 'first;
                    }
                    (race.second.then)(&scene);
                    let mut second = pass(&scene.context, &scene, &(race.second.of)(), now);
                    let ended = watched(&mut second, j, &scene, &mut found).await;
                    let done = !ended && watched(&mut first, k, &scene, &mut found).await;
                    if !ended {
                        watched(&mut second, END, &scene, &mut found).await;
                    }
                    if !done {
                        watched(&mut first, END, &scene, &mut found).await;
                    }
                    drop((first, second));
                    scene.crash.pace(false);
                    scene.settle_all().await;
                    found.extend(scene.shared());
                    of_this += 1;
                    if !found.is_empty() {
                        wrong.push(format!("{} at {i}, {j}, {k}: {found:?}", race.name));
                    }
                    assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{}", race.name);
                    if ended {
                        break 'second;
                    }
                }
            }
        }
        assert!(of_this > 20, "{}: {of_this}", race.name);
        schedules += of_this;
    }
    println!("interleavings of two passes: {schedules}, of which {} share a claim", wrong.len());
    assert!(wrong.is_empty(), "{} of {schedules}, like {:?}", wrong.len(), &wrong[..wrong.len().min(12)]);
}

/// A process that dies after a write leaves what it applied: the next one looks at the other resource first.
#[tokio::test(start_paused = true)]
async fn after_a_crash_the_other_does_not_get_what_is_applied() {
    let (mut crashes, mut wrong) = (0, Vec::new());
    for race in RACES {
        let base = prepared(race.before).await;
        for (n, answered) in (0..).flat_map(|n| [(n, true), (n, false)]) {
            let mut scene = base.copy();
            (race.first.then)(&scene);
            scene.crash.after(n, answered);
            scene.pass(&(race.first.of)()).await;
            if !scene.crash.happened() {
                break;
            }
            crashes += 1;
            scene.restart();
            scene.crash.pace(true);
            (race.second.then)(&scene);
            let (now, mut found) = (scene.later().await, Vec::new());
            let mut second = pass(&scene.context, &scene, &(race.second.of)(), now);
            watched(&mut second, END, &scene, &mut found).await;
            drop(second);
            scene.crash.pace(false);
            scene.settle_all().await;
            found.extend(scene.shared());
            if !found.is_empty() {
                wrong.push(format!("{} after write {n}, answered: {answered}: {found:?}", race.name));
            }
            assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{}", race.name);
        }
    }
    println!("crashes while two want one claim: {crashes}");
    assert!(crashes > 50, "{crashes}");
    assert!(wrong.is_empty(), "{} of {crashes}, like {:?}", wrong.len(), &wrong[..wrong.len().min(12)]);
}

/// Two passes on two threads may both have looked before either took.
#[tokio::test(start_paused = true)]
async fn what_one_took_the_other_does_not_get_though_it_looked_before() {
    let scene = prepared(and_elsewhere).await;
    let [a, b, far] = [user(), second(), elsewhere()].map(|of| scene.get(&of).unwrap());
    a_wants_n(&scene);
    b_wants_n(&scene);
    let (wants, too) = (scene.get(&user()).unwrap(), scene.get(&second()).unwrap());
    let live = || scene.cluster.now().resources.values().filter_map(kube::ResourceExt::uid).collect();
    let memory = &scene.context.memory;
    for unchanged in [&a, &b, &far] {
        assert!(memory.take(unchanged, live).await, "what it holds is its own");
    }
    assert!(memory.take(&wants, live).await);
    assert!(!memory.take(&too, live).await);
    assert!(memory.take(&wants, live).await, "again");
    memory.holds(&wants, &a.status.clone().unwrap()).await;
    assert!(memory.take(&too, live).await, "it was told to be free");
    assert!(!memory.take(&wants, live).await);
    assert!(memory.take(&wants, Default::default).await, "of one that is gone");
    scene.put(&user(), A_ROUTE);
    scene.put(&elsewhere(), C_ROUTE);
    assert!(memory.take(&scene.get(&user()).unwrap(), live).await);
    assert!(!memory.take(&scene.get(&elsewhere()).unwrap(), live).await, "the host is a namespace's");
}

/// Three resources that are edited at random, each onto names, hosts and keys that the others want as well.
/// `FUSEBOX_SEED=n` plays one again.
#[tokio::test(start_paused = true)]
async fn of_many_edits_and_passes_at_random_no_two_apply_one_claim() {
    let (seeds, mut writes, mut wrong) = (fusebox_processes::seeds(0..250, 0..5000), 0, Vec::new());
    let base = prepared(and_elsewhere).await;
    let all = [user(), second(), elsewhere()];
    for seed in seeds.clone() {
        let mut random = fastrand::Rng::with_seed(seed);
        let scene = started(&base).await;
        let mut now = scene.later().await;
        let mut passes: [Option<Pass<'_>>; 3] = [None, None, None];
        let mut found = Vec::new();
        for _ in 0..150 {
            let at = random.usize(..3);
            match random.usize(..20) {
                0 | 1 => scene.put(&all[at], &wish(at, &mut random)),
                2 => scene.cluster.faults.set_down(random.bool()),
                3 => now = scene.later().await,
                _ => {
                    if passes[at].is_none() {
                        passes[at] = Some(pass(&scene.context, &scene, &all[at], now));
                    }
                    if let Some(pass) = &mut passes[at]
                        && watched(pass, random.usize(1..4), &scene, &mut found).await
                    {
                        passes[at] = None;
                    }
                }
            }
        }
        drop(passes);
        scene.crash.pace(false);
        scene.cluster.faults.set_down(false);
        scene.settle_all().await;
        found.extend(scene.shared());
        assert!(scene.foreign_is_untouched() && scene.is_silent().await, "seed {seed}");
        writes += scene.crash.writes();
        if !found.is_empty() {
            wrong.push(format!("seed {seed}: {found:?}"));
        }
    }
    println!(
        "random interleavings of three resources: {seeds:?} with {writes} writes, {} share",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} of {seeds:?}, like {:?}", wrong.len(), &wrong[..wrong.len().min(12)]);
}

fn wish(at: usize, random: &mut fastrand::Rng) -> String {
    let service = [["user-service", "three"], ["two", "three"], ["far", "far"]][at][random.usize(..2)];
    let name = ["a", "b", "c", "n"][random.usize(..4)];
    let host = ["h.io", "i.io"][random.usize(..2)];
    let path = ["/x", "/y"][random.usize(..2)];
    let key = if at < 2 && random.bool() {
        format!(", config: {{ etcdKeys: {{ service.user.{name}: '1' }} }}")
    } else {
        String::new()
    };
    format!(
        "{{ service: {{ name: {service}, port: grpc }}, consul: {{ serviceName: {name} }}, \
         gateway: {{ routes: [{{ host: {host}, pathPrefix: {path} }}] }}{key} }}"
    )
}
