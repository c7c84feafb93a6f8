//! Entries that go-micro's clients read; what real ones make of them is in user-service/tests/go_micro.

use super::scene::{FULL, Scene, user};
use crate::ports::CatalogOp;

const TAGS: &str = "tags: [v1], meta: { team: shop }";

fn with(consul: &str) -> String {
    assert!(FULL.contains(TAGS));
    FULL.replace(TAGS, consul)
}

#[tokio::test(start_paused = true)]
async fn its_tags_come_before_traefiks_and_stay_as_they_are() {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), &with("tags: [traefik.enable=true, v1], meta: { team: shop }, goMicro: true"));
    scene.settle(&user()).await;
    for entry in scene.entries() {
        let kinds: Vec<&str> =
            entry.tags.iter().map(|tag| tag.split_once('-').map_or(tag.as_str(), |(kind, _)| kind)).collect();
        assert_eq!(kinds, ["v", "t", "t", "t", "t", "traefik.enable=true", "v1"]);
        assert_eq!(entry.meta["team"], "shop", "beside the tags, for everybody else");
    }
    let before = scene.crash.writes();
    scene.pass(&user()).await;
    assert_eq!(scene.crash.writes(), before, "converged means silent");
}

#[tokio::test(start_paused = true)]
async fn a_policy_edit_writes_no_entry_but_one_that_names_another_method_does() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    let methods = |names: &[&str], timeout: &str| {
        let methods: Vec<String> = (names.iter())
            .map(|name| format!("{{ match: {{ grpc: {{ service: user.v1.UserService, method: {name} }} }}, timeout: {timeout} }}"))
            .collect();
        format!(
            "{{ service: {{ name: user-service, port: grpc }}, consul: {{ goMicro: true }}, inbound: {{ methods: [{}] }} }}",
            methods.join(", ")
        )
    };
    let writes = async |spec: &str| {
        scene.catalog.log.try_lock().unwrap().clear();
        scene.put(&user(), spec);
        scene.settle(&user()).await;
        let log = scene.catalog.log.try_lock().unwrap().clone();
        log.iter().filter(|op| matches!(op, CatalogOp::Register(_))).count()
    };
    assert_eq!(writes(&methods(&["GetUser"], "1s")).await, 1);
    assert_eq!(writes(&methods(&["GetUser"], "2s")).await, 0);
    assert_eq!(writes(&methods(&["GetUser", "ListUsers"], "2s")).await, 1);
    assert_eq!(
        writes(&methods(&["ListUsers", "GetUser"], "2s")).await,
        0,
        "their order is nothing to a client"
    );
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_leaves_no_tag_behind() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), &with("tags: [v1], goMicro: true"));
    scene.settle(&user()).await;
    assert!(scene.entries()[0].tags.len() > 1);
    scene.put(&user(), &with("tags: [v1], goMicro: false"));
    scene.settle(&user()).await;
    assert_eq!(scene.entries()[0].tags, ["v1"]);
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_ends_its_clients_is_refused_and_what_was_registered_stays() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), &with("tags: [v1], goMicro: true"));
    scene.settle(&user()).await;
    let before = scene.entries();
    for tag in ["t", "e"] {
        scene.put(&user(), &with(&format!("tags: [v1, {tag}], goMicro: true")));
        scene.settle(&user()).await;
        assert_eq!(scene.told(&user(), "Accepted"), "False/Invalid");
        let why = scene.condition(&user(), "Accepted").message;
        assert!(why.contains(&format!("exactly {tag},")), "{why}");
        assert_eq!(scene.entries(), before);
    }
    scene.put(&user(), &with("tags: [t, e]"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "True/Accepted", "whoever has no go-micro may");
}
