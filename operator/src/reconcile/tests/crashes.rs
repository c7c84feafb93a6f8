//! One crash after every write of every operation, its answer heard or not: the next process ends where an
//! undisturbed one does.

use std::collections::BTreeMap;

use fusebox_policy::keys::Ident;

use super::scene::{FULL, Scene, user};
use crate::ports::{NodeView, RouteView};

type State = (BTreeMap<String, NodeView>, BTreeMap<String, String>, BTreeMap<Ident, RouteView>);

fn state(scene: &Scene) -> State {
    (scene.catalog.state(), scene.store.state(), scene.routes.state())
}

const EDITED: &str = "
service: { name: user-service, port: http }
inbound: { rateLimit: { requestsPerSecond: 90, scope: Service } }
outbound: { timeout: 200ms }
consul: { serviceName: people.service }
gateway: { routes: [{ host: people.example.com }] }
config: { etcdKeys: { service.user.limit: '5' } }
";

struct Act {
    name: &'static str,
    before: fn(&Scene),
    then: fn(&Scene),
}

const ACTS: [Act; 6] = [
    Act { name: "create", before: |_| {}, then: |scene| scene.put(&user(), FULL) },
    Act {
        name: "edit",
        before: |scene| scene.put(&user(), FULL),
        then: |scene| {
            scene.put(&user(), EDITED);
            scene.scale(&[("b", true), ("c", false)]);
        },
    },
    Act {
        name: "lose the service",
        before: |scene| scene.put(&user(), FULL),
        then: |scene| scene.scale(&[]),
    },
    Act {
        name: "share a rate no more",
        before: |scene| scene.put(&user(), EDITED),
        then: |scene| scene.put(&user(), FULL),
    },
    Act {
        name: "delete with a shared rate",
        before: |scene| scene.put(&user(), EDITED),
        then: |scene| scene.delete(&user()),
    },
    Act { name: "delete", before: |scene| scene.put(&user(), FULL), then: |scene| scene.delete(&user()) },
];

async fn set(act: &Act) -> Scene {
    let scene = Scene::new();
    scene.foreign();
    scene.scale(&[("a", true), ("b", true)]);
    (act.before)(&scene);
    scene.settle(&user()).await;
    (act.then)(&scene);
    scene
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_anywhere_the_next_process_ends_where_an_undisturbed_one_does() {
    for act in &ACTS {
        let undisturbed = set(act).await;
        undisturbed.settle(&user()).await;
        let wanted = state(&undisturbed);
        let mut crashes = 0;
        for n in 0.. {
            let mut happened = false;
            for answered in [true, false] {
                let mut scene = set(act).await;
                scene.crash.after(n, answered);
                scene.settle(&user()).await;
                happened |= scene.crash.happened();
                scene.restart();
                scene.settle(&user()).await;
                assert_eq!(state(&scene), wanted, "{} after write {n}, answered: {answered}", act.name);
                let writes = scene.crash.writes();
                scene.pass(&user()).await;
                assert_eq!(scene.crash.writes(), writes, "{}: silent after write {n}", act.name);
                crashes += 1;
            }
            if !happened {
                break;
            }
        }
        assert!(crashes > 4, "{} has writes to crash after", act.name);
    }
}
