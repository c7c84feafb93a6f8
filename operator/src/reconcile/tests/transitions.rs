//! From any declaration to any other, by any way: what is there in the end is what a new operator would make of
//! the last one.

use fusebox_policy::keys::Ident;
use serde_json::{Value, json};

use super::fields::{base, choices, set, start};
use super::scene::{FULL, Scene, user};
use super::workloads::{EDITED, State, fresh};

/// A declaration with some fields changed and some taken away; it may be none that the operator accepts.
fn any(random: &mut fastrand::Rng, choices: &[(String, Value)]) -> Value {
    let mut spec = base();
    for _ in 0..random.usize(0..8) {
        let (field, value) = &choices[random.usize(..choices.len())];
        let mut next = spec.clone();
        set(&mut next, field, (random.usize(..4) > 0).then_some(value));
        // What the schema refuses never comes to the operator.
        if serde_json::from_value::<fusebox_policy::v1alpha1::ResilientServiceSpec>(next.clone()).is_ok() {
            spec = next;
        }
    }
    for section in ["inbound", "outbound", "shadow", "consul", "gateway", "config"] {
        if random.usize(..8) == 0 {
            spec.as_object_mut().unwrap().remove(section);
        }
    }
    spec
}

fn is_accepted(scene: &Scene) -> bool {
    scene.told(&user(), "Accepted") == "True/Accepted"
}

/// What the API server's rules refuse.
#[derive(Clone, Copy, PartialEq)]
enum Bad {
    /// Is kept back: what was there stays.
    KeptBack,
    /// Comes to the operator, as beside an older definition.
    LetThrough,
}

/// Declares anything, by as many tries as it takes until something is there; false: it is bad.
fn declare(
    scene: &Scene,
    random: &mut fastrand::Rng,
    choices: &[(String, Value)],
    bad: Bad,
    met: &mut usize,
) -> bool {
    loop {
        let spec = any(random, choices).to_string();
        if scene.apply(&user(), &spec).is_ok() {
            return true;
        }
        *met += 1;
        if bad == Bad::LetThrough {
            scene.put(&user(), &spec);
            return false;
        }
        if scene.get(&user()).is_some() {
            return true;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn by_any_way_the_end_is_the_same() {
    by_any_way(Bad::KeptBack).await;
}

#[tokio::test(start_paused = true)]
async fn by_any_way_the_end_is_the_same_though_no_rule_keeps_anything_back() {
    by_any_way(Bad::LetThrough).await;
}

async fn by_any_way(bad: Bad) {
    let (choices, runs) = (choices(), if fusebox_processes::long() { 5000 } else { 400 });
    let (mut same, mut blocked, mut refused, mut met) = (0, 0, 0, 0);
    for seed in 0..runs {
        let mut random = fastrand::Rng::with_seed(seed);
        let scene = start();
        let (mut before, mut admitted) = (None, true);
        for step in 0..3 {
            let instances = [("a", random.bool()), ("b", random.bool()), ("c", random.bool())];
            scene.scale(&instances[..random.usize(1..4)]);
            // An endpoint that changes at the same time is followed by what stays.
            before = before.map(|_: State| State::of(&scene).planes());
            admitted = declare(&scene, &mut random, &choices, bad, &mut met);
            // Not every one of them is seen, and not every one to its end.
            if step < 2 && random.usize(..3) == 0 {
                scene.crash.after(random.usize(..6), random.bool());
                scene.settle_all().await;
                scene.crash.restart();
                before = None;
                continue;
            }
            scene.settle_all().await;
            if is_accepted(&scene) {
                before = Some(State::of(&scene));
            }
        }
        assert!(admitted || !is_accepted(&scene), "seed {seed}: accepted, and the API server refuses it");
        let wanted = fresh(&scene).await;
        if scene.told(&user(), "Ready") == "True/Ready" {
            State::of(&scene).must_be(&wanted, &format!("seed {seed}"));
            same += 1;
        } else if is_accepted(&scene) {
            // Of a Service or port that is not there: what was registered and routed before stays.
            assert_eq!(State::of(&scene).keys, wanted.keys, "seed {seed}");
            blocked += 1;
        } else {
            let now = State::of(&scene);
            if let Some(before) = before {
                assert_eq!(
                    (now.routes, now.keys.len()),
                    (before.routes, before.keys.len()),
                    "seed {seed}: it took something down"
                );
            }
            assert!(scene.condition(&user(), "Accepted").message.len() > 20, "seed {seed}");
            refused += 1;
        }
        assert!(scene.foreign_is_untouched() && scene.is_silent().await, "seed {seed}");
    }
    assert!(same > runs / 3 && refused > 0 && met > 0, "{same} {refused} {met}");
    let fate = if bad == Bad::KeptBack { "kept back" } else { "let through" };
    println!(
        "random transitions S0 -> S1 -> S2: {runs}, {same} equal to a fresh S2, {blocked} as far as it can be, \
         {refused} refused with a message; {met} edits that the API server refuses were {fate}"
    );
}

/// What is wrong with a declaration, as a change of a field.
fn wrong() -> Vec<(&'static str, Value)> {
    vec![
        (".outbound.timeout", json!("0s")),
        (".outbound.commands[].retry.perTryTimeout", json!("9s")),
        (".inbound.methods[].rateLimit.burst", json!(0)),
        (".outbound.circuitBreaker.slowCall.threshold", json!("9s")),
        (".outbound.errors.ignore[]", json!(["INVALID_ARGUMENT"])),
        (".config.document", json!([1])),
        (".config.etcdKeys{}", json!({ "elsewhere": "1" })),
        (".config.etcdKeys{}", json!({ "service.user.foreign": "1" })),
        (".config.etcdKeys{}", json!({ "service.user.theirs": "1" })),
        (".gateway.tls", Value::Null),
        (".gateway.routes[].host", json!("theirs.io")),
        (".gateway.routes[].port", json!("grcp")),
        (".consul.serviceName", json!("theirs")),
        (".service.name", json!("usr-service")),
        (".service.name", json!("theirs")),
        (".service.port", json!("grcp")),
    ]
}

#[tokio::test(start_paused = true)]
async fn from_a_bad_state_there_is_a_way_back_and_a_way_on() {
    let yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
    let good = [base(), yaml(FULL), yaml(EDITED), yaml("service: { name: user-service, port: http }")];
    let (mut played, mut kept_back) = (0, 0);
    for (field, value) in wrong() {
        let mut bad = base();
        if value.is_null() {
            bad["gateway"].as_object_mut().unwrap().remove("tls");
        } else {
            assert!(set(&mut bad, field, Some(&value)), "{field}");
        }
        kept_back += usize::from(Scene::new().admits(&user(), &bad.to_string()).is_err());
        for before in [None].into_iter().chain(good.iter().map(Some)) {
            for after in &good {
                let scene = start();
                scene.service("theirs");
                let theirs = Ident::new("shop", "a-third");
                scene.put(
                    &theirs,
                    "{ service: { name: theirs, port: grpc }, consul: {}, \
                     gateway: { routes: [{ host: theirs.io, pathPrefix: /users }] }, \
                     config: { etcdKeys: { service.user.theirs: '1' } } }",
                );
                scene.settle_all().await;
                if let Some(before) = before {
                    scene.put(&user(), &before.to_string());
                    scene.settle_all().await;
                }
                scene.put(&user(), &bad.to_string());
                scene.settle_all().await;
                assert_ne!(scene.told(&user(), "Ready"), "True/Ready", "{field}: {value}");
                assert!(scene.condition(&user(), "Ready").message.len() > 20, "{field}");
                assert_eq!(scene.told(&theirs, "Ready"), "True/Ready", "{field}");
                assert!(scene.is_silent().await && scene.shared().is_empty(), "{field}: {value}");
                scene.put(&user(), &after.to_string());
                scene.settle_all().await;
                State::of(&scene).must_be(&fresh(&scene).await, &format!("{field}: {value}"));
                assert!(scene.foreign_is_untouched() && scene.is_silent().await, "{field}");
                played += 1;
            }
        }
    }
    println!(
        "bad states left: {played}, of {} kinds, {kept_back} of which only come by an older definition",
        wrong().len()
    );
}
