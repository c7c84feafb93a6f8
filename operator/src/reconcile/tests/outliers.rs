//! What callers have ejected: told of the one they call, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use fusebox::etcd::EtcdConfig;
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::v1alpha1::{EjectedEndpoint, ResilientServiceStatus};
use fusebox_policy::wire::OutlierReport;
use fusebox_processes::etcd as server;
use jiff::Timestamp;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::scene::{CLUSTER, FULL, Scene, user};
use crate::epoch::Fenced;
use crate::etcd::{Changed, Etcd, Reports};
use crate::ports::{Notice, PolicyStore};
use crate::reconcile::plan::{Direction, Plan, plan};
use crate::reconcile::{desired, observe, reconcile, validate};

fn cart() -> Ident {
    Ident::new("web", "cart")
}

fn bad(endpoint: &str) -> OutlierReport {
    ejected("user.service", endpoint, "5 failures in a row")
}

fn ejected(service: &str, endpoint: &str, reason: &str) -> OutlierReport {
    OutlierReport {
        service: service.into(),
        command: "get_user".into(),
        endpoint: endpoint.into(),
        since: Timestamp::UNIX_EPOCH,
        reason: reason.into(),
    }
}

/// Three ready instances, registered, all of which run the policy.
async fn called() -> Scene {
    let scene = Scene::new();
    scene.scale(&[("a", true), ("b", true), ("c", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    for instance in ["a", "b", "c"] {
        scene.report(&user(), instance, true, |_| {});
    }
    scene.pass(&user()).await;
    scene.cluster.notices.try_lock().unwrap().clear();
    scene
}

fn ejects(scene: &Scene, of: &Ident, instance: &str, endpoints: &[&str]) {
    scene.report(of, instance, false, |report| {
        report.outliers = endpoints.iter().map(|endpoint| bad(endpoint)).collect();
    });
}

fn status(scene: &Scene) -> ResilientServiceStatus {
    scene.get(&user()).unwrap().status.unwrap()
}

fn listed(scene: &Scene) -> Vec<String> {
    status(scene).outliers.into_iter().map(|one| one.endpoint).collect()
}

fn notices(scene: &Scene) -> Vec<Notice> {
    std::mem::take(&mut *scene.cluster.notices.try_lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_callers_have_ejected_is_told_of_the_one_they_call() {
    let scene = called().await;
    let before = status(&scene);
    assert_eq!((before.outliers.len(), before.outlier_count), (0, None));
    ejects(&scene, &cart(), "1", &["10.0.0.1:50051"]);
    let done = scene.pass(&user()).await.unwrap();
    assert_eq!(done.effects, 0);
    let now = status(&scene);
    assert_eq!(
        now.outliers,
        [EjectedEndpoint {
            endpoint: "10.0.0.1:50051".into(),
            instance: "b".into(),
            since: "1970-01-01T00:36:20Z".into(),
            reason: "5 failures in a row".into(),
            callers: vec!["web/cart".into()],
            caller_count: 1,
            calling_instances: 1,
        }]
    );
    let told = notices(&scene);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].warning, told[0].reason.as_str()), (true, "Ejected"));
    assert_eq!(
        told[0].message,
        "callers do not call 10.0.0.1:50051 (b) for now (5 failures in a row, by web/cart)"
    );
    let rest = |status: ResilientServiceStatus| ResilientServiceStatus {
        outliers: Vec::new(),
        outlier_count: None,
        ..status
    };
    assert_eq!((now.outlier_count, rest(now)), (Some(1), before), "and nothing else changed");

    let writes = scene.crash.writes();
    scene.pass(&user()).await;
    scene.pass(&user()).await;
    assert_eq!((scene.crash.writes(), notices(&scene)), (writes, Vec::new()));

    // More of them: it has its time still, and there is no second Event.
    ejects(&scene, &cart(), "2", &["10.0.0.1:50051"]);
    ejects(&scene, &Ident::new("shop", "billing"), "1", &["10.0.0.1:50051"]);
    scene.pass(&user()).await;
    let one = status(&scene).outliers.remove(0);
    assert_eq!((one.callers, one.caller_count), (vec!["shop/billing".into(), "web/cart".into()], 2));
    assert_eq!((one.calling_instances, one.since.as_str()), (3, "1970-01-01T00:36:20Z"));
    assert_eq!(notices(&scene), []);

    for (of, instance) in [(cart(), "1"), (cart(), "2"), (Ident::new("shop", "billing"), "1")] {
        ejects(&scene, &of, instance, &[]);
    }
    scene.pass_after(29, &user()).await;
    assert_eq!(listed(&scene), ["10.0.0.1:50051"], "it may come again");
    scene.pass_after(1, &user()).await;
    assert_eq!((status(&scene).outliers, status(&scene).outlier_count), (Vec::new(), None));
    let told = notices(&scene);
    assert_eq!((told.len(), told[0].warning, told[0].reason.as_str()), (1, false, "TakenBack"), "{told:?}");
    assert_eq!(told[0].message, "callers call 10.0.0.1:50051 (b) again, or it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_ejects_and_takes_back_all_the_time_costs_two_writes() {
    let scene = called().await;
    let writes = scene.cluster.faults.writes();
    for _ in 0..100 {
        ejects(&scene, &cart(), "1", &["10.0.0.1:50051"]);
        scene.pass_after(3, &user()).await;
        ejects(&scene, &cart(), "1", &[]);
        scene.pass_after(3, &user()).await;
    }
    assert_eq!((scene.cluster.faults.writes(), listed(&scene).len()), (writes + 1, 1));
    scene.pass(&user()).await;
    assert_eq!((scene.cluster.faults.writes(), listed(&scene).len()), (writes + 2, 0));
    // A crowd that grows all the time is told of every ten seconds.
    for n in 0..100 {
        ejects(&scene, &cart(), &n.to_string(), &["10.0.0.1:50051"]);
        scene.pass_after(1, &user()).await;
    }
    let writes = scene.cluster.faults.writes() - writes - 2;
    assert!((9..=11).contains(&writes), "{writes}");
}

#[tokio::test(start_paused = true)]
async fn only_own_endpoints_under_the_own_name_are_told_of() {
    let scene = called().await;
    let thief = Ident::new("shop", "thief");
    scene.service("thief");
    // The same addresses, and the name that is another's.
    scene.scale_of("thief", &[("x", true), ("y", true)]);
    scene.put(&thief, "{ service: { name: thief, port: grpc }, consul: { serviceName: User.Service } }");
    scene.report(&cart(), "1", false, |report| {
        report.outliers = vec![
            bad("10.0.0.9:50051"),
            bad("10.0.0.0:8080"),
            ejected("other.service", "10.0.0.0:50051", "5 failures in a row"),
            ejected("USER.service", "10.0.0.1:50051", "rm -rf / # see evil.example"),
        ];
    });
    scene.pass(&user()).await;
    scene.pass(&thief).await;
    let told = status(&scene).outliers;
    assert_eq!((told.len(), told[0].endpoint.as_str()), (1, "10.0.0.1:50051"));
    assert_eq!(told[0].reason, "for a reason that this operator does not know");
    assert_eq!(scene.told(&thief, "Accepted"), "False/Conflict");
    assert!(scene.get(&thief).unwrap().status.unwrap().outliers.is_empty());

    // A generation that is refused: what is registered is still called.
    scene.put(&user(), &FULL.replace("etcdKeys: { service.user.timeout", "etcdKeys: { forbidden"));
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Accepted"), "False/KeyNotAllowed");
    assert_eq!(listed(&scene), ["10.0.0.1:50051"]);
    scene.catalog.faults.set_down(true);
    scene.pass(&user()).await;
    assert_eq!(listed(&scene), ["10.0.0.1:50051"], "what is registered cannot be read");
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_entry_has_no_outliers() {
    let scene = called().await;
    ejects(&scene, &cart(), "1", &["10.0.0.1:50051", "10.0.0.2:50051"]);
    scene.pass(&user()).await;
    assert_eq!(listed(&scene).len(), 2);
    scene.scale(&[("a", true), ("b", true)]);
    scene.pass(&user()).await;
    assert_eq!(listed(&scene), ["10.0.0.1:50051"]);
    // Another instance at the same address.
    scene.scale(&[("a", true), ("z", true)]);
    scene.pass(&user()).await;
    assert_eq!(status(&scene).outliers[0].instance, "z");
    scene.put(&user(), "service: { name: user-service, port: grpc }");
    scene.settle(&user()).await;
    scene.pass(&user()).await;
    assert_eq!((listed(&scene), status(&scene).outlier_count), (Vec::<String>::new(), None));
}

#[tokio::test(start_paused = true)]
async fn while_reports_cannot_be_read_and_after_a_restart_it_stays_as_it_was_told() {
    let mut scene = called().await;
    ejects(&scene, &cart(), "1", &["10.0.0.1:50051"]);
    scene.pass(&user()).await;
    let told = status(&scene).outliers;
    notices(&scene);
    scene.store.faults.set_down(true);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "Unknown/EtcdUnavailable");
    assert_eq!((&status(&scene).outliers, status(&scene).outlier_count), (&told, Some(1)));
    scene.store.faults.set_down(false);
    for _ in 0..10 {
        scene.pass(&user()).await;
    }
    assert_eq!((&status(&scene).outliers, status(&scene).outlier_count), (&told, Some(1)));
    notices(&scene);

    let writes = scene.cluster.faults.writes();
    scene.restart();
    *scene.store.outliers.try_lock().unwrap() = crate::etcd::outliers::Outliers::default();
    scene.report(&cart(), "1", false, |report| {
        report.outliers = vec![ejected("user.service", "10.0.0.1:50051", "a probe failed")];
    });
    scene.settle(&user()).await;
    scene.pass(&user()).await;
    assert_eq!((scene.cluster.faults.writes(), &status(&scene).outliers), (writes, &told));
    assert_eq!(notices(&scene), []);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_listed_in_an_order_that_stays_and_all_are_counted() {
    let scene = called().await;
    scene.many("user-service", 0..40);
    scene.settle(&user()).await;
    notices(&scene);
    let all: Vec<String> = (0..40).map(|n| format!("10.0.0.{n}:50051")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for (n, some) in all[..30].chunks(16).enumerate() {
        ejects(&scene, &Ident::new("web", format!("cart-{n}")), "1", some);
    }
    for n in 0..6 {
        ejects(&scene, &Ident::new("shop", format!("billing-{n}")), "1", &all[..1]);
    }
    scene.pass(&user()).await;
    let first = status(&scene);
    assert_eq!((first.outliers.len(), first.outlier_count), (16, Some(30)));
    let zero = first.outliers.iter().find(|one| one.endpoint == all[0]).unwrap();
    assert_eq!((zero.callers.len(), zero.caller_count, zero.calling_instances), (4, 7, 7));
    let told = notices(&scene);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].message.contains(" and 12 more for now (the first: 5 failures in a row, by shop/billing-0, ")
    );

    // A newer one, by the first address: it comes last.
    ejects(&scene, &cart(), "1", &all[30..31]);
    let writes = scene.cluster.faults.writes();
    scene.pass(&user()).await;
    let then = status(&scene);
    assert_eq!((&then.outliers, then.outlier_count), (&first.outliers, Some(31)));
    scene.pass(&user()).await;
    assert_eq!(scene.cluster.faults.writes(), writes + 1);
}

/// All that a caller may write, and things that no library would.
fn saying() -> impl Strategy<Value = Vec<OutlierReport>> {
    let service = prop_oneof![Just("user.service".to_owned()), Just("User.Service".to_owned()), ".{0,200}"];
    let endpoint = prop_oneof![
        (0..4_u8).prop_map(|n| format!("10.0.0.{n}:50051")),
        "10.0.0.[0-9]:[0-9]{1,6}",
        ".{0,40}"
    ];
    let reason = prop_oneof![Just("5 failures in a row".to_owned()), ".{0,300}"];
    let one = (service, endpoint, reason, any::<i32>()).prop_map(|(service, endpoint, reason, since)| {
        OutlierReport {
            since: Timestamp::from_second(since.into()).unwrap(),
            ..ejected(&service, &endpoint, &reason)
        }
    });
    proptest::collection::vec(one, 0..40)
}

/// What a pass would do.
async fn planned(scene: &Scene) -> (desired::Desired, Plan) {
    let seen = observe::observe(&scene.context, &scene.shown(&user()).unwrap()).await;
    let judged = validate::validate(&seen, &scene.context.settings.allowed);
    let desired = desired::desired(CLUSTER, &seen, &judged);
    let plan = plan(CLUSTER, &seen, &desired, Direction::Converge);
    (desired, plan)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a report's outliers say, be it the service's own or another's: all that is desired, planned, applied and
    /// told is the same, but for what is told of outliers.
    #[test]
    fn no_report_of_outliers_changes_what_is_done(
        says in saying(), own in saying(), ready in proptest::collection::vec(any::<bool>(), 1..4)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let calm = called().await;
            let talked = calm.copy();
            for (scene, is_talked) in [(&calm, false), (&talked, true)] {
                let instances: Vec<_> = ["a", "x", "y"].into_iter().zip(ready.iter().copied()).collect();
                scene.scale(&instances);
                scene.report(&user(), "a", true, |report| {
                    if is_talked { report.outliers.clone_from(&own); }
                });
                if is_talked {
                    scene.report(&cart(), "1", false, |report| report.outliers.clone_from(&says));
                }
            }
            let (wanted, found) = (planned(&calm).await, planned(&talked).await);
            assert!(!wanted.1.effects.is_empty(), "a plan that has something in it");
            assert_eq!(wanted, found);
            for scene in [&calm, &talked] {
                scene.settle(&user()).await;
                scene.pass(&user()).await;
            }
            assert_eq!(calm.catalog.state(), talked.catalog.state());
            assert_eq!(calm.store.state(), talked.store.state());
            assert_eq!(calm.routes.state(), talked.routes.state());
            let own: Vec<String> = (0..instances_of(&talked)).map(|n| format!("10.0.0.{n}:50051")).collect();
            for one in status(&talked).outliers {
                assert!(own.contains(&one.endpoint), "{one:?}");
                assert!(one.reason == "5 failures in a row" || one.reason.starts_with("for a reason that"), "{one:?}");
            }
            let mut told = status(&talked);
            (told.outliers, told.outlier_count) = (Vec::new(), None);
            assert_eq!(status(&calm), told);
        });
    }
}

fn instances_of(scene: &Scene) -> usize {
    scene.cluster.services.try_lock().unwrap()[&Ident::new("shop", "user-service")].1.len()
}

/// From a report on the wire, through a real etcd and the whole of a pass, to the status.
#[tokio::test]
async fn a_report_in_etcd_comes_to_the_status_of_the_called() {
    let server = server::Etcd::start().await;
    let (mut client, keys, reports) = (server.client().await, Keys::new(CLUSTER), Reports::default());
    let (changed, mut told) = mpsc::unbounded_channel();
    let follow = tokio::spawn(reports.clone().follow(EtcdConfig::new([server.url()]), keys.clone(), changed));
    let etcd = Etcd::new(EtcdConfig::new([server.url()]), CLUSTER, vec!["service.user.".into()], reports);
    let etcd: Arc<dyn PolicyStore> = Arc::new(etcd);
    let mut scene = Scene::new();
    scene.context.etcd = Fenced::new(etcd, "etcd", "operator-1", scene.signals.clone());
    scene.scale(&[("a", true), ("b", true)]);
    scene.put(&user(), FULL);
    let pass = async |scene: &Scene| {
        reconcile(&scene.context, &scene.shown(&user()).unwrap(), Timestamp::now()).await
    };
    let mut hear = async |what: Changed| {
        let hear = async { while told.recv().await != Some(what.clone()) {} };
        assert!(tokio::time::timeout(Duration::from_mins(1), hear).await.is_ok(), "{what:?}");
    };
    hear(Changed::All).await;
    pass(&scene).await;
    assert_eq!(
        (scene.told(&user(), "Ready"), scene.told(&user(), "Published")),
        ("True/Ready".into(), "True/Published".into())
    );

    let report = include_str!("../../../../policy/testdata/report-outliers.json");
    let report = report.trim().replace("10.1.0.7:50051", "10.0.0.1:50051");
    client.put(keys.report(&cart(), "uid-1"), report, None).await.unwrap();
    hear(Changed::Called("user.service".into())).await;
    server::eventually("the status says it", async || {
        pass(&scene).await;
        status(&scene).outlier_count == Some(1)
    })
    .await;
    let one = status(&scene).outliers.remove(0);
    assert_eq!((one.endpoint.as_str(), one.instance.as_str()), ("10.0.0.1:50051", "b"));
    assert_eq!((one.callers, one.reason.as_str()), (vec!["web/cart".to_owned()], "5 failures in a row"));
    assert_eq!(scene.registered(), ["+uid-a", "+uid-b"], "and is registered as it was");
    follow.abort();
}
