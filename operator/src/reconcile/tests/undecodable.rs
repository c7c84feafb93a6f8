//! A resource that cannot be decoded any more, with something in the backends.

use std::sync::Arc;

use serde_json::json;

use super::scene::{FULL, Scene, user};
use crate::kubernetes::Guarded;
use fusebox_policy::v1alpha1::PROCEED_ANNOTATION;

use crate::reconcile::keep::keep;
use crate::reconcile::unreadable::{self, Unreadable};
use crate::reconcile::{Done, HELD, Next};

/// One pass for it, as the watch shows it after an edit that nobody here understands.
async fn pass(scene: &Scene) -> Done {
    let mut object = serde_json::to_value(scene.get(&user()).unwrap()).unwrap();
    object["spec"] = json!({ "service": 5 });
    let object: Guarded = serde_json::from_value(object).unwrap();
    let Unreadable::Left(rest, notice) = unreadable::judge(&object.0.unwrap_err()) else { panic!() };
    keep(&scene.context, &Arc::new(rest), &notice).await
}

fn told(scene: &Scene) -> usize {
    let notices = scene.cluster.notices.try_lock().unwrap();
    notices.iter().filter(|notice| notice.reason == "Unreadable").count()
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_of_it_stays_and_follows_its_instances() {
    let mut scene = Scene::new();
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    let (routes, keys, status) =
        (scene.routes.state(), scene.store.state(), scene.get(&user()).unwrap().status);
    assert!(routes.len() == 2 && scene.document(&user()).is_some());

    assert_eq!(pass(&scene).await.effects, 0, "nothing is new");
    scene.scale(&[("b", false), ("c", true)]);
    pass(&scene).await;
    assert_eq!(scene.registered(), ["-uid-b", "+uid-c"]);
    assert_eq!(pass(&scene).await.effects, 0);
    assert_eq!((scene.routes.state(), scene.store.state()), (routes, keys));
    assert_eq!(scene.get(&user()).unwrap().status, status);
    assert_eq!(told(&scene), 1, "once for each edit");

    // A new process knows of it only by its status.
    scene.restart();
    scene.scale(&[("c", true), ("d", true)]);
    pass(&scene).await;
    assert_eq!(scene.registered(), ["+uid-c", "+uid-d"]);
    scene.put(&user(), &FULL.replace("250ms", "200ms"));
    scene.settle(&user()).await;
    assert!(scene.document(&user()).unwrap().to_json().contains("200"), "it is readable again");
}

#[tokio::test(start_paused = true)]
async fn many_of_its_instances_that_vanish_at_once_stay_until_somebody_says_so() {
    let scene = Scene::new();
    scene.many("user-service", 0..100);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.many("user-service", 0..10);
    assert_eq!(pass(&scene).await.next, Next::After(HELD));
    assert_eq!(scene.entries().len(), 100);
    let last = scene.cluster.notices.try_lock().unwrap().last().cloned().unwrap();
    assert!(last.reason == "DeletionsHeld" && last.message.contains(PROCEED_ANNOTATION), "{last:?}");
    let notices = scene.cluster.notices.try_lock().unwrap().len();
    pass(&scene).await;
    assert_eq!(scene.cluster.notices.try_lock().unwrap().len(), notices, "told once");
    scene.annotate(&user(), PROCEED_ANNOTATION, "true");
    pass(&scene).await;
    assert_eq!(scene.entries().len(), 10);
}
