//! Instances that vanish, and how many may go without a word.

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::PROCEED_ANNOTATION;

use super::scene::{FULL, Scene, user};
use crate::ports::CatalogOp;
use crate::reconcile::{HELD, Next};

/// A resource with a hundred ready instances, registered.
async fn hundred() -> Scene {
    let scene = Scene::new();
    scene.many("user-service", 0..100);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(scene.entries().len(), 100);
    scene.catalog.log.try_lock().unwrap().clear();
    scene
}

fn passing(scene: &Scene) -> usize {
    scene.entries().iter().filter(|entry| entry.passing == Some(true)).count()
}

#[tokio::test(start_paused = true)]
async fn many_that_vanish_at_once_stay_as_they_were_until_somebody_says_so() {
    let scene = hundred().await;
    scene.many("user-service", 0..10);
    for _ in 0..10 {
        scene.pass(&user()).await;
        assert_eq!((scene.entries().len(), passing(&scene)), (100, 100));
    }
    assert!(scene.catalog.log.try_lock().unwrap().is_empty());
    assert_eq!(scene.told(&user(), "Registered"), "False/DeletionsHeld");
    assert_eq!(scene.told(&user(), "Ready"), "False/DeletionsHeld");
    let message = scene.condition(&user(), "Registered").message;
    assert!(
        message.starts_with("90 instances vanished") && message.contains(PROCEED_ANNOTATION),
        "{message}"
    );
    let notices = scene.cluster.notices.try_lock().unwrap().clone();
    let told = notices.iter().filter(|notice| notice.reason == "DeletionsHeld" && notice.warning);
    assert_eq!(told.count(), 1, "told once: {notices:?}");
    let writes = scene.crash.writes();
    assert_eq!(scene.pass(&user()).await.unwrap().next, Next::After(HELD), "the budget has a window");
    assert_eq!(scene.crash.writes(), writes, "held means silent");
    assert!(scene.context.metrics.encode().contains(r#"fusebox_deletions_held{backend="Consul"} 90"#));

    scene.annotate(&user(), PROCEED_ANNOTATION, "true");
    scene.pass(&user()).await;
    assert_eq!(scene.entries().len(), 10);
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
    assert!(
        scene.condition(&user(), "Registered").message.contains(PROCEED_ANNOTATION),
        "it is to be taken off"
    );
    assert!(scene.context.metrics.encode().contains(r#"fusebox_deletions_held{backend="Consul"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn what_is_back_was_never_gone() {
    let scene = hundred().await;
    scene.many("user-service", 0..0);
    scene.pass(&user()).await;
    scene.many("user-service", 0..100);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Registered"), "True/Registered");
    assert!(scene.catalog.log.try_lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn instances_that_shut_down_in_order_are_removed_however_many() {
    let scene = hundred().await;
    let names: Vec<String> = (0..100).map(|n| format!("user-service-{n:03}")).collect();
    let terminating: Vec<_> = names.iter().enumerate().map(|(n, name)| (name.as_str(), n < 10)).collect();
    scene.scale(&terminating);
    scene.pass_after(2, &user()).await;
    assert_eq!((scene.entries().len(), passing(&scene)), (100, 10));
    scene.many("user-service", 0..10);
    scene.pass_after(2, &user()).await;
    assert_eq!((scene.entries().len(), scene.told(&user(), "Registered").as_str()), (10, "True/Registered"));
}

#[tokio::test(start_paused = true)]
async fn a_little_too_fast_is_late_and_what_comes_meanwhile_is_registered() {
    let scene = hundred().await;
    scene.many("user-service", 20..100);
    scene.pass_after(2, &user()).await;
    assert_eq!(scene.entries().len(), 80);
    scene.many("user-service", 40..110);
    scene.pass_after(2, &user()).await;
    assert_eq!(scene.entries().len(), 90, "ten came, twenty wait");
    assert_eq!(scene.told(&user(), "Registered"), "False/DeletionsHeld");
    scene.pass(&user()).await;
    assert_eq!((scene.entries().len(), scene.told(&user(), "Registered").as_str()), (70, "True/Registered"));
}

#[tokio::test(start_paused = true)]
async fn what_was_commanded_passes() {
    let scene = hundred().await;
    scene.put(&user(), &FULL.replace("port: grpc", "port: http"));
    scene.pass(&user()).await;
    assert!(scene.entries().len() == 100 && scene.entries().iter().all(|entry| entry.port == 8080));

    scene.put(&user(), &FULL.replace("serviceName: user.service", "serviceName: people"));
    scene.many("user-service", 0..10);
    scene.pass(&user()).await;
    assert_eq!(scene.entries().len(), 10, "nothing under the old name or port is asked for");

    scene.many("user-service", 0..100);
    scene.pass(&user()).await;
    scene.put(&user(), "service: { name: user-service }");
    scene.pass(&user()).await;
    assert!(scene.entries().is_empty(), "its section was taken out");

    let scene = hundred().await;
    scene.delete(&user());
    scene.pass(&user()).await;
    assert!(scene.entries().is_empty(), "it was deleted");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_service_and_a_refused_spec_take_no_more_than_the_budget() {
    let scene = hundred().await;
    scene.put(&user(), &FULL.replace("timeout: 250ms", "timeout: 0s"));
    scene.many("user-service", 0..10);
    scene.pass(&user()).await;
    assert_eq!(
        (scene.entries().len(), scene.told(&user(), "Registered").as_str()),
        (100, "False/DeletionsHeld")
    );
    scene.put(&user(), FULL);
    scene.cluster.services.try_lock().unwrap().clear();
    scene.pass(&user()).await;
    assert_eq!(
        (scene.entries().len(), scene.told(&user(), "Registered").as_str()),
        (100, "False/DeletionsHeld")
    );
    let message = scene.condition(&user(), "Registered").message;
    assert!(message.contains("there is no Service user-service"), "{message}");
    let status = scene.get(&user()).unwrap().status.unwrap();
    assert!(status.claims.contains(&"consul/user.service".to_owned()), "it still holds its name");
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_that_of_the_whole_cluster() {
    let scene = Scene::new();
    let names: Vec<String> = (0..8).map(|n| format!("svc-{n}")).collect();
    let all: Vec<Ident> = names.iter().map(|name| Ident::new("shop", name)).collect();
    for (name, of) in names.iter().zip(&all) {
        scene.service(name);
        scene.many(name, 0..10);
        scene.put(of, &format!("{{ service: {{ name: {name}, port: grpc }}, consul: {{}} }}"));
        scene.settle(of).await;
    }
    for name in &names {
        scene.many(name, 0..0);
    }
    for minute in 0..5 {
        for of in &all {
            scene.pass_after(if minute == 0 { 1 } else { 20 }, of).await;
        }
        assert_eq!(scene.entries().len(), 60, "24 of 80 may go, minute {minute}");
    }
    let removed = scene.catalog.log.try_lock().unwrap().clone();
    assert_eq!(removed.iter().filter(|op| matches!(op, CatalogOp::Deregister { .. })).count(), 20);
    // Whoever is deleted does not hold up the others.
    for of in &all[2..7] {
        scene.delete(of);
        scene.pass(of).await;
    }
    scene.pass(&all[7]).await;
    assert!(scene.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn those_of_a_refused_edit_that_asks_for_no_entries_are_held_like_all() {
    let scene = hundred().await;
    let consul = "consul: { serviceName: user.service, tags: [v1], meta: { team: shop } }";
    scene.put(&user(), &FULL.replace(consul, "").replace("300ms", "0s"));
    scene.many("user-service", 0..10);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    assert_eq!((scene.entries().len(), passing(&scene)), (100, 100));
    assert_eq!(scene.told(&user(), "Registered"), "False/DeletionsHeld");
}
