//! Edits that are refused, and what they leave alone; who holds what.

use std::collections::BTreeSet;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::ResilientServiceStatus;

use super::scene::{FULL, Scene, user};
use crate::claims::Claim;
use crate::model::Endpoint;
use crate::reconcile::{Next, RESYNC, SETTLES};

const INVALID: (&str, &str) = ("timeout: 250ms", "timeout: 0s");

fn second() -> Ident {
    Ident::new("shop", "user-two")
}

fn other() -> Ident {
    Ident::new("other", "x")
}

/// The name and address of each entry.
fn found(scene: &Scene) -> Vec<(String, String)> {
    scene.entries().into_iter().map(|entry| (entry.name, entry.address)).collect()
}

/// The rules of the route objects, each once.
fn rules(scene: &Scene) -> Vec<String> {
    let objects = scene.routes.state();
    let rules = objects.values().filter_map(|view| view.spec["routes"].as_array()).flatten();
    let mut rules: Vec<String> = rules.filter_map(|rule| rule["match"].as_str()).map(str::to_owned).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// The Service `name` with one instance, which user-service does not have.
fn service(scene: &Scene, name: &str) {
    scene.service(name);
    scene.cluster.services.try_lock().unwrap().get_mut(&Ident::new("shop", name)).unwrap().1 =
        vec![Endpoint {
            instance: format!("uid-{name}"),
            display: name.to_owned(),
            address: "10.9.9.9".into(),
            ports: [("grpc".to_owned(), 50051)].into(),
            ready: true,
        }];
}

fn hold(scene: &Scene, of: &Ident, claims: &[&str]) {
    let mut all = scene.cluster.resources.try_lock().unwrap();
    let status = all.get_mut(of).unwrap().status.get_or_insert_with(ResilientServiceStatus::default);
    status.claims = claims.iter().map(|&claim| claim.to_owned()).collect();
}

#[tokio::test(start_paused = true)]
async fn a_name_or_host_that_is_taken_takes_nothing_down() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(
        &other(),
        "{ service: { name: o }, consul: { serviceName: taken }, gateway: { routes: [{ host: taken.io }] } }",
    );
    scene.settle(&other()).await;
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.routes.state(), scene.store.state());
    for (from, to) in [
        ("pathPrefix: /users }", "pathPrefix: /users }, { host: taken.io }"),
        ("user.service,", "taken,"),
        ("api.example.com", "taken.io"),
    ] {
        scene.put(&user(), &FULL.replace(from, to));
        scene.settle(&user()).await;
        assert_eq!(scene.told(&user(), "Accepted"), "False/Conflict");
        assert_eq!((scene.catalog.state(), scene.routes.state(), scene.store.state()), before, "{to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_taken_takes_nothing_down() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    service(&scene, "two");
    scene.put(&second(), "service: { name: two }");
    scene.settle(&second()).await;
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.routes.state());
    scene.put(&user(), &FULL.replace("user-service", "two"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Conflict");
    assert_eq!((scene.catalog.state(), scene.routes.state()), before);
}

#[tokio::test(start_paused = true)]
async fn entries_follow_the_service_they_came_from_and_not_a_refused_one() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    service(&scene, "payments");
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let refused =
        FULL.replace(INVALID.0, INVALID.1).replace("user-service, port: grpc", "payments, port: http");
    scene.put(&user(), &refused);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    assert_eq!(scene.registered(), ["+uid-a", "+uid-b"]);
    scene.scale(&[("b", false), ("c", true)]);
    scene.settle(&user()).await;
    assert_eq!(scene.registered(), ["-uid-b", "+uid-c"]);
    assert!(scene.entries().iter().all(|entry| entry.port == 50051));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_exist_takes_nothing_down() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.routes.state());
    scene.put(&user(), &FULL.replace("user-service", "usr-service"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "False/ServiceNotFound");
    assert_eq!((scene.catalog.state(), scene.routes.state()), before);
    scene.put(&second(), "service: { name: user-service }");
    scene.settle(&second()).await;
    assert_eq!(scene.told(&second(), "Accepted"), "False/Conflict", "its instances are still registered");
}

#[tokio::test(start_paused = true)]
async fn entries_that_do_not_say_where_they_came_from_are_left_alone() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    for node in scene.catalog.nodes.try_lock().unwrap().values_mut() {
        for entry in node.entries.values_mut() {
            entry.meta.remove("fusebox-service");
        }
    }
    let before = scene.catalog.state();
    scene.put(&user(), &FULL.replace(INVALID.0, INVALID.1));
    scene.scale(&[("b", true)]);
    scene.settle(&user()).await;
    assert_eq!(scene.catalog.state(), before);
}

#[tokio::test(start_paused = true)]
async fn a_refused_rename_sets_nothing_free() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    service(&scene, "two");
    let same = FULL.replace("user-service", "two").replace("service.user.timeout", "service.user.two");
    scene.put(&user(), FULL);
    scene.put(&second(), &same);
    scene.settle(&user()).await;
    scene.settle(&second()).await;
    assert_eq!(scene.told(&second(), "Accepted"), "False/Conflict");
    let before = (found(&scene), rules(&scene));

    let renamed = FULL.replace("user.service,", "renamed,").replace("api.example.com", "new.example.com");
    scene.put(&user(), &renamed.replace(INVALID.0, INVALID.1));
    for of in [user(), second(), user(), second()] {
        scene.settle(&of).await;
    }
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    assert_eq!(scene.told(&second(), "Accepted"), "False/Conflict");
    assert!(scene.condition(&second(), "Accepted").message.contains("ResilientService user, which holds it"));
    assert_eq!((found(&scene), rules(&scene)), before);

    scene.put(&user(), &renamed);
    scene.settle(&user()).await;
    scene.settle(&second()).await;
    assert_eq!(scene.told(&second(), "Ready"), "True/Ready");
    let names: Vec<String> = found(&scene).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"renamed".to_owned()) && names.contains(&"user.service".to_owned()), "{names:?}");
    assert_eq!(rules(&scene).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_released_yet_is_held() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.catalog.faults.set_down(true);
    scene.put(&user(), &FULL.replace("user.service,", "renamed,"));
    scene.settle(&user()).await;
    let claims = || scene.get(&user()).unwrap().status.unwrap().claims;
    assert!(claims().contains(&"consul/user.service".into()) && claims().contains(&"consul/renamed".into()));
    scene.catalog.faults.set_down(false);
    scene.settle(&user()).await;
    assert!(!claims().contains(&"consul/user.service".into()), "{:?}", claims());
    let before = scene.crash.writes();
    scene.pass(&user()).await;
    assert_eq!(scene.crash.writes(), before, "converged means silent");
}

#[tokio::test(start_paused = true)]
async fn an_older_one_that_edits_itself_onto_what_is_held_does_not_get_it() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&other(), "service: { name: o }");
    scene.settle(&other()).await;
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let before = (scene.catalog.state(), scene.routes.state(), scene.store.state());
    scene.put(
        &other(),
        "{ service: { name: o }, consul: { serviceName: user.service }, \
         gateway: { routes: [{ host: api.example.com }] } }",
    );
    for of in [other(), user(), other()] {
        scene.settle(&of).await;
    }
    assert_eq!(scene.told(&other(), "Accepted"), "False/Conflict");
    let message = scene.condition(&other(), "Accepted").message;
    assert!(message.contains("a resource of another namespace, which holds it"), "{message}");
    assert_eq!(scene.told(&user(), "Ready"), "True/Ready");
    assert_eq!((scene.catalog.state(), scene.routes.state()), (before.0, before.1));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_hold_one_claim_the_younger_withdraws_that_claim_alone() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&other(), "{ service: { name: o }, consul: { serviceName: user.service } }");
    hold(&scene, &other(), &["consul/none"]);
    scene.put(&user(), &FULL.replace("/users }", "/users }, { host: b.io }"));
    hold(&scene, &user(), &["consul/user.service"]);
    scene.settle(&user()).await;
    assert_eq!((scene.entries().len(), rules(&scene).len()), (1, 2));

    hold(&scene, &other(), &["consul/user.service"]);
    scene.settle(&user()).await;
    assert!(scene.entries().is_empty());
    assert_eq!(rules(&scene).len(), 2, "what is not contested stays");
    assert_eq!(scene.told(&user(), "Registered"), "False/NotAccepted");
    assert!(!scene.get(&user()).unwrap().status.unwrap().claims.contains(&"consul/user.service".into()));

    scene.put(&other(), "{ service: { name: o }, gateway: { routes: [{ host: b.io }] } }");
    hold(&scene, &other(), &["host/b.io", "route/b.io"]);
    scene.settle(&user()).await;
    assert_eq!(rules(&scene).len(), 1, "{:?}", rules(&scene));
    assert_eq!(scene.routes.state().len(), 2);
}

fn third() -> Ident {
    Ident::new("third", "z")
}

const ON_B: &str = "{ service: { name: z }, gateway: { routes: [{ host: b.io }] } }";

#[tokio::test(start_paused = true)]
async fn an_older_one_that_waits_for_one_thing_keeps_nobody_from_another() {
    let scene = Scene::new();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let both = "{ service: { name: o }, consul: { serviceName: user.service }, gateway: { routes: [{ host: b.io }] } }";
    scene.put(&other(), both);
    scene.put(&third(), ON_B);
    scene.settle(&third()).await;
    assert_eq!(scene.told(&third(), "Accepted"), "True/Accepted", "the other has to wait for user.service");
    scene.settle(&other()).await;

    scene.delete(&user());
    scene.settle(&user()).await;
    scene.settle(&other()).await;
    let message = scene.condition(&other(), "Accepted").message;
    assert!(message.contains("host b.io") && !message.contains("user.service"), "{message}");
    scene.settle(&third()).await;
    assert_eq!(scene.told(&third(), "Accepted"), "True/Accepted", "who holds keeps");

    scene.delete(&third());
    scene.settle(&third()).await;
    scene.put(&third(), ON_B);
    scene.settle(&third()).await;
    assert_eq!(scene.told(&third(), "Accepted"), "False/Conflict", "nothing keeps the older one any more");
    scene.settle(&other()).await;
    assert_eq!(scene.told(&other(), "Accepted"), "True/Accepted");
}

/// Who holds the host b.io, as far as no status says so yet.
async fn holders(scene: &Scene) -> BTreeSet<String> {
    scene.context.memory.holders(&[Claim::Host("b.io".into())]).await
}

#[tokio::test(start_paused = true)]
async fn what_an_old_view_asks_for_is_not_taken() {
    let mut scene = Scene::new();
    scene.put(&third(), ON_B);
    let old = scene.cluster.now();
    scene.put(&third(), "{ service: { name: z } }");
    scene.restart();
    *scene.cluster.cache.try_lock().unwrap() = Some(old);
    scene.pass(&third()).await;
    assert!(holders(&scene).await.is_empty());
    assert!(scene.routes.state().is_empty() && scene.get(&third()).unwrap().status.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_old_view_passes_over_nobody_who_has_it_by_now() {
    let mut scene = Scene::new();
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let both = "{ service: { name: o }, consul: { serviceName: user.service }, gateway: { routes: [{ host: b.io }] } }";
    scene.put(&other(), both);
    scene.put(&third(), "{ service: { name: z } }");
    scene.put(&third(), ON_B);
    let old = scene.cluster.now();
    scene.delete(&user());
    for of in [user(), other()] {
        scene.settle(&of).await;
    }
    assert_eq!(scene.told(&other(), "Accepted"), "True/Accepted");

    scene.restart();
    *scene.cluster.cache.try_lock().unwrap() = Some(old);
    let before = (scene.routes.state(), scene.store.state());
    scene.pass(&third()).await;
    assert_eq!((scene.routes.state(), scene.store.state()), before);
    assert!(scene.get(&third()).unwrap().status.is_none(), "it took nothing");
    assert!(holders(&scene).await.is_empty());
    let status = scene.get(&other()).unwrap().status;
    scene.pass(&other()).await;
    assert_eq!(scene.get(&other()).unwrap().status, status, "and what it took is not forgotten");
    *scene.cluster.cache.try_lock().unwrap() = None;
    scene.settle(&third()).await;
    assert_eq!(scene.told(&third(), "Accepted"), "False/Conflict");
}

#[tokio::test(start_paused = true)]
async fn an_older_one_of_bad_content_keeps_nobody_from_what_it_asks_for() {
    for bad in ["config: { etcdKeys: { not.allowed: '1' } }", "outbound: { timeout: 0s }"] {
        let scene = Scene::new();
        let wants = "service: { name: o }, gateway: { routes: [{ host: b.io }] }";
        scene.put(&other(), &format!("{{ {wants}, {bad} }}"));
        scene.put(&third(), ON_B);
        scene.settle(&third()).await;
        assert_eq!(
            scene.told(&third(), "Accepted"),
            "False/Conflict",
            "nobody has looked at the older one yet"
        );
        scene.settle(&other()).await;
        scene.settle(&third()).await;
        assert_eq!(scene.told(&third(), "Accepted"), "True/Accepted", "{bad}");
        scene.put(&other(), &format!("{{ {wants} }}"));
        scene.settle(&other()).await;
        assert_eq!(scene.told(&other(), "Accepted"), "False/Conflict", "who holds keeps");
    }
}

/// What is in Consul came back with a backup; the edit that let go of the name is older than the one that is refused.
#[tokio::test(start_paused = true)]
async fn what_a_restored_consul_has_under_a_name_of_another_goes_though_the_newest_edit_is_refused() {
    let mut scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), "{ service: { name: user-service, port: grpc }, consul: { serviceName: old } }");
    scene.settle(&user()).await;
    let backup = scene.catalog.state();
    scene.put(&user(), "{ service: { name: user-service, port: grpc }, consul: { serviceName: new } }");
    scene.settle(&user()).await;
    service(&scene, "two");
    scene.put(&second(), "{ service: { name: two, port: grpc }, consul: { serviceName: OLD } }");
    scene.settle(&second()).await;
    assert_eq!(found(&scene).len(), 2);

    for (refused, what) in [
        (
            "{ service: { name: user-service, port: grpc }, consul: { serviceName: new }, inbound: { timeout: 0s } }",
            "refused",
        ),
        ("{ service: { name: nobody, port: grpc }, consul: { serviceName: new } }", "without its Service"),
    ] {
        scene.put(&user(), refused);
        scene.settle(&user()).await;
        let there = found(&scene);
        scene.catalog.nodes.try_lock().unwrap().clone_from(&backup);
        scene.restart();
        for of in [user(), second(), user()] {
            scene.settle(&of).await;
        }
        let names: Vec<String> = found(&scene).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["OLD"], "{what}; before: {there:?}");
    }
}

/// The watches show what a write lets go of before this process has the write's answer: who is woken by that finds it
/// held, and nobody wakes it again.
#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_being_let_go_of_looks_again_soon() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.put(&second(), FULL);
    scene.settle(&second()).await;
    let next = async || scene.pass(&second()).await.unwrap().next;
    assert_eq!(next().await, Next::After(RESYNC), "it waits for the other one");
    hold(&scene, &user(), &[]);
    assert_eq!(next().await, Next::After(SETTLES), "its own word is another than the watches'");
}

/// Who is refused for something else is nothing to one that it only seems to be older than, and its refusal wakes
/// nobody that shares nothing with what refused it.
#[tokio::test(start_paused = true)]
async fn who_loses_to_one_that_only_asks_looks_again_soon() {
    let spec =
        |hosts: &str| format!("{{ service: {{ name: user-service }}, gateway: {{ routes: [{hosts}] }} }}");
    let (scene, third) = (Scene::new(), Ident::new("third", "y"));
    scene.put(&third, "{ service: { name: y }, gateway: { routes: [{ host: y.io }] } }");
    scene.put(&other(), "{ service: { name: x }, gateway: { routes: [{ host: x.io }, { host: y.io }] } }");
    scene.put(&user(), &spec("{ host: x.io }"));
    let next = async |scene: &Scene| scene.pass(&user()).await.unwrap().next;
    assert_eq!(next(&scene).await, Next::After(SETTLES));
    assert_eq!(scene.told(&user(), "Accepted"), "False/Conflict");
    assert_eq!(next(&scene).await, Next::After(RESYNC), "later, the longer it is so");
    scene.pass(&third).await;
    scene.pass(&other()).await;
    assert_eq!(scene.told(&other(), "Accepted"), "False/Conflict");
    next(&scene).await;
    assert_eq!(scene.told(&user(), "Accepted"), "True/Accepted");
}
