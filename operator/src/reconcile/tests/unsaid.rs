//! What a process applied before it died, its status not written: it is held all the same.

use super::scene::{Scene, user};
use super::workloads::second;

const OLD: &str = "{ service: { name: user-service, port: grpc }, consul: { serviceName: a } }";
const YOUNG: &str = "{ service: { name: two, port: grpc }, consul: { serviceName: b } }";

/// The younger one gets a name that the older one asks for after the crash, before anybody looked at the younger.
#[tokio::test(start_paused = true)]
async fn what_a_crash_left_unsaid_is_not_given_to_another() {
    let mut crashed = 0;
    for writes in 1.. {
        let mut scene = Scene::new();
        scene.service("two");
        scene.scale(&[("a", true)]);
        scene.scale_of("two", &[("t", true)]);
        scene.put(&user(), OLD);
        scene.put(&second(), YOUNG);
        scene.settle_all().await;
        scene.put(&second(), &YOUNG.replace("serviceName: b", "serviceName: n"));
        scene.crash.after(writes, true);
        scene.pass(&second()).await;
        if !scene.crash.happened() {
            break;
        }
        crashed += 1;
        scene.restart();
        scene.put(&second(), YOUNG);
        scene.put(&user(), &OLD.replace("serviceName: a", "serviceName: n"));
        scene.pass(&user()).await;
        assert_eq!(scene.shared(), Vec::<String>::new(), "after {writes} writes");
        scene.settle_all().await;
        assert_eq!(scene.told(&user(), "Accepted"), "True/Accepted", "after {writes} writes");
        assert!(scene.shared().is_empty() && scene.is_silent().await, "after {writes} writes");
    }
    assert!(crashed >= 3, "{crashed}");
}
