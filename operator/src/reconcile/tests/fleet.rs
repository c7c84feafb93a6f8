//! The number of instances that share a rate limit.

use std::collections::BTreeMap;

use fusebox_policy::keys::Keys;
use fusebox_policy::v1alpha1::ABANDON_ANNOTATION;

use super::scene::{CLUSTER, FULL, Scene, user};

fn with(inbound: &str) -> String {
    format!("{FULL}inbound: {inbound}\n")
}

fn shared() -> String {
    with("{ rateLimit: { requestsPerSecond: 90, scope: Service } }")
}

fn fleet(scene: &Scene) -> Option<String> {
    scene.store.state().get(&Keys::new(CLUSTER).fleet(&user())).cloned()
}

async fn published(spec: &str, instances: &[(&str, bool)]) -> Scene {
    let scene = Scene::new();
    scene.scale(instances);
    scene.put(&user(), spec);
    scene.settle(&user()).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn it_is_the_number_of_ready_instances_and_outside_the_policy() {
    let scene = published(&shared(), &[("a", true), ("b", true), ("c", false)]).await;
    assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":2}"#));
    let before = scene.document(&user()).unwrap();
    scene.scale(&[("a", true), ("b", true), ("c", true)]);
    scene.settle(&user()).await;
    assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":3}"#));
    assert_eq!(scene.document(&user()).unwrap(), before);
    let writes = scene.crash.writes();
    scene.pass(&user()).await;
    assert_eq!(scene.crash.writes(), writes, "converged means silent");
    scene.scale(&[]);
    scene.settle(&user()).await;
    assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":0}"#));
}

#[tokio::test(start_paused = true)]
async fn a_method_or_a_command_alone_may_share_its_rate() {
    let method =
        "{ match: { http: { pathPrefix: / } }, rateLimit: { requestsPerSecond: 9, scope: Service } }";
    let command = FULL.replace("timeout: 250ms", "rateLimit: { requestsPerSecond: 9, scope: Service }");
    for spec in [with(&format!("{{ methods: [{method}] }}")), command] {
        let scene = published(&spec, &[("a", true)]).await;
        assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":1}"#));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_shared_rate_a_change_of_an_instance_is_no_write_to_etcd() {
    let own = "{ rateLimit: { requestsPerSecond: 9 } }";
    let candidate = "{}\nshadow: { inbound: { rateLimit: { requestsPerSecond: 9, scope: Service } } }";
    for spec in [FULL.to_owned(), with(own), with(candidate)] {
        let scene = published(&spec, &[("a", true), ("b", true)]).await;
        let (keys, writes): (BTreeMap<_, _>, _) = (scene.store.state(), scene.crash.writes());
        assert_eq!(fleet(&scene), None);
        scene.catalog.log.try_lock().unwrap().clear();
        scene.scale(&[("a", true), ("b", false)]);
        scene.pass(&user()).await;
        assert_eq!(scene.catalog.log.try_lock().unwrap().len(), 1);
        assert_eq!(scene.store.state(), keys);
        assert_eq!(scene.crash.writes() - writes, 2, "Consul's and the status's");
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_with_the_shared_rate_and_with_the_resource() {
    let scene = published(&shared(), &[("a", true)]).await;
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    assert_eq!(fleet(&scene), None);

    scene.put(&user(), &shared());
    scene.settle(&user()).await;
    assert!(fleet(&scene).is_some());
    scene.delete(&user());
    scene.settle(&user()).await;
    assert!(scene.get(&user()).is_none() && scene.store.state().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_follows_the_instances_of_a_policy_that_stays_in_force() {
    let scene = published(&shared(), &[("a", true), ("b", true)]).await;
    let refused = FULL.replace("300ms", "0s").replace("name: user-service,", "name: another,");
    scene.put(&user(), &refused);
    scene.scale(&[("a", true)]);
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
    assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":1}"#));
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_clean_up_names_it() {
    let scene = published(&shared(), &[("a", true)]).await;
    scene.delete(&user());
    scene.store.faults.set_down(true);
    scene.annotate(&user(), ABANDON_ANNOTATION, "true");
    scene.pass(&user()).await;
    let notices = scene.cluster.notices.try_lock().unwrap().clone();
    let told = notices.last().unwrap();
    assert!(told.message.contains("{policy,config,fleet,raw}/shop/user"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_of_the_service_before_a_refused_edit_whether_consul_is_there_or_not() {
    let refused = shared().replace("300ms", "0s").replace("name: user-service,", "name: another,");
    let without = |spec: &str| {
        spec.replace("consul: { serviceName: user.service, tags: [v1], meta: { team: shop } }", "")
    };
    for (before, after, is_down) in
        [(shared(), refused.clone(), true), (without(&shared()), without(&refused), false)]
    {
        let scene = published(&before, &[("a", true), ("b", true)]).await;
        scene.service("another");
        scene.put(&user(), &after);
        scene.catalog.faults.set_down(is_down);
        scene.pass(&user()).await;
        assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
        assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":2}"#), "{after}");
        scene.scale(&[("a", true)]);
        scene.pass(&user()).await;
        assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":1}"#), "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn beside_a_policy_that_cannot_be_read_it_stays() {
    let scene = published(&shared(), &[("a", true), ("b", true)]).await;
    let key = Keys::new(CLUSTER).policy(&user());
    scene.store.keys.try_lock().unwrap().insert(key, r#"{"schema":9}"#.into());
    scene.put(&user(), &shared().replace("300ms", "0s"));
    scene.scale(&[("a", true)]);
    scene.pass(&user()).await;
    assert_eq!(fleet(&scene).as_deref(), Some(r#"{"ready":2}"#), "nobody knows whether it is shared");
}
