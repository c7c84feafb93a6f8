//! What a person is told.

use std::sync::Arc;
use std::time::Duration;

use fusebox_policy::wire::{BreakerReport, BreakerState, Rejected, ShadowKind, ShadowReport};
use jiff::Timestamp;

use super::scene::{FULL, Scene, user};
use crate::reconcile::memory::CACHE_LAG;
use crate::reconcile::{Done, Next, reconcile};

async fn published(instances: &[(&str, bool)]) -> Scene {
    let scene = Scene::new();
    scene.scale(instances);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene
}

fn summary(scene: &Scene) -> (String, String) {
    let summary = scene.get(&user()).unwrap().status.unwrap().summary.unwrap();
    (summary.enforced, summary.breaker)
}

#[tokio::test(start_paused = true)]
async fn enforced_means_every_ready_instance_reported_the_published_hash() {
    let scene = published(&[("a", true), ("b", true), ("c", false)]).await;
    assert_eq!(scene.told(&user(), "Enforced"), "Unknown/NoReports");
    assert_eq!(summary(&scene), ("0/2".into(), "unknown".into()));

    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying");
    assert!(scene.condition(&user(), "Enforced").message.starts_with("1/2"));
    let failures = scene.get(&user()).unwrap().status.unwrap().failures;
    assert_eq!((failures[0].instance.as_str(), failures[0].reason.as_str()), ("b", "NoReport"));

    scene.report(&user(), "b", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    assert_eq!(summary(&scene), ("2/2".into(), "closed".into()));
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(1));

    scene.put(&user(), &FULL.replace("300ms", "200ms"));
    scene.settle(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying");
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(2));

    scene.report(&user(), "a", true, |_| {});
    scene.report(&user(), "b", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stopped_reporting_is_stale_until_it_reports_again() {
    let scene = published(&[("a", true), ("b", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.report(&user(), "b", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");

    scene.report_ends(&user(), "a");
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Stale");
    let message = scene.condition(&user(), "Enforced").message;
    assert!(message.starts_with("1/2") && message.ends_with("what they run: a"), "{message}");
    let failures = scene.get(&user()).unwrap().status.unwrap().failures;
    assert!(failures[0].message.contains("its report ended at 1970-01-01T00:26:40Z"), "{failures:?}");

    scene.report_ends(&user(), "b");
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Stale", "all of them, and they did report once");

    scene.scale(&[("a", false), ("b", true)]);
    scene.report(&user(), "b", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced", "one that is not ready does not count");
}

/// A pass at once, not a minute later as [`Scene::pass`].
async fn pass_now(scene: &Scene) -> Done {
    let resource = Arc::new(scene.get(&user()).unwrap());
    reconcile(&scene.context, &resource, Timestamp::from_second(5000).unwrap()).await
}

fn propagations(scene: &Scene) -> String {
    let text = scene.context.metrics.encode();
    let of = "fusebox_enforcement_propagation_seconds_count ";
    text.lines().find_map(|line| line.strip_prefix(of)).unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_in_force_everywhere_at_once_is_one_write_of_the_status() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(propagations(&scene), "1");

    scene.put(&user(), &FULL.replace("300ms", "200ms"));
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(pass_now(&scene).await.next, Next::After(Duration::from_millis(250)));
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(1), "nothing is written yet");
    tokio::time::advance(Duration::from_millis(40)).await;
    scene.report(&user(), "a", true, |_| {});
    pass_now(&scene).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(2));
    assert_eq!(propagations(&scene), "2");
    let writes = scene.crash.writes();
    pass_now(&scene).await;
    assert_eq!((scene.crash.writes(), propagations(&scene).as_str()), (writes, "2"));

    scene.put(&user(), &FULL.replace("300ms", "100ms"));
    tokio::time::advance(Duration::from_mins(1)).await;
    pass_now(&scene).await;
    tokio::time::advance(Duration::from_millis(250)).await;
    pass_now(&scene).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying", "it is said in the end");
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(3));
}

#[tokio::test(start_paused = true)]
async fn edits_that_follow_each_other_fast_do_not_put_the_status_off_for_ever() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    tokio::time::advance(Duration::from_mins(1)).await;
    for edit in 1..=4 {
        scene.put(&user(), &FULL.replace("300ms", &format!("{}ms", 200 + edit)));
        pass_now(&scene).await;
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying");
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_waits_to_be_written_does_not_wait_for_a_backend_that_is_gone() {
    let scene = published(&[("a", true), ("b", true)]).await;
    for instance in ["a", "b"] {
        scene.report(&user(), instance, true, |_| {});
    }
    scene.pass(&user()).await;
    scene.catalog.faults.set_down(true);
    for _ in 0..10 {
        scene.pass(&user()).await;
    }
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    // Something is written, and within the second after it something that matters.
    scene.report(&user(), "a", true, |report| report.unknown_commands = vec!["x".into()]);
    scene.pass(&user()).await;
    scene.report_ends(&user(), "b");
    let Next::After(wait) = pass_now(&scene).await.next else { panic!("it is not looked at again") };
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    tokio::time::advance(wait).await;
    pass_now(&scene).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Stale");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_does_not_count_a_policy_that_was_in_force_before() {
    let mut scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    scene.restart();
    scene.pass(&user()).await;
    assert_eq!(propagations(&scene), "0");
}

#[tokio::test(start_paused = true)]
async fn a_compiled_in_default_is_not_enforced() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", false, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_edit_changes_nothing_for_the_instances() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    scene.put(&user(), &FULL.replace("/users", "/people"));
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    assert_eq!(scene.condition(&user(), "Enforced").observed_generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_told_with_its_reason() {
    let scene = published(&[("a", true), ("b", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.report(&user(), "b", false, |report| {
        report.rejected = Some(Rejected { hash: None, reason: "schema 2 is unknown".into() });
    });
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Rejected");
    let message = scene.condition(&user(), "Enforced").message;
    assert!(message.starts_with("1/2") && message.contains("b: schema 2 is unknown"), "{message}");
    assert_eq!(scene.get(&user()).unwrap().status.unwrap().instances.unwrap().rejecting, 1);
}

#[tokio::test(start_paused = true)]
async fn an_inbound_policy_is_not_enforced_without_the_server_layer() {
    let scene = published(&[("a", true), ("b", true)]).await;
    for instance in ["a", "b"] {
        scene.report(&user(), instance, true, |report| report.server_layer = Some(false));
    }
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced", "nothing inbound is declared");

    scene.put(&user(), &format!("{FULL}inbound: {{ timeout: 1s }}\n"));
    scene.settle(&user()).await;
    scene.report(&user(), "a", true, |report| report.server_layer = Some(false));
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying", "b runs the policy of before");
    scene.report(&user(), "b", true, |_| {});
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/NotAttached");
    let message = scene.condition(&user(), "Enforced").message;
    assert!(message.starts_with("1/2") && message.contains(".layer(fusebox.server_layer())"), "{message}");
    let failures = scene.get(&user()).unwrap().status.unwrap().failures;
    assert_eq!((failures[0].instance.as_str(), failures[0].reason.as_str()), ("a", "NotAttached"));
    assert!(failures[0].message.contains(".layer(fusebox.server_layer())"), "{}", failures[0].message);
    assert_eq!(summary(&scene), ("1/2".into(), "closed".into()));

    // A library that does not tell, and one that has it by now.
    for told in [None, Some(true)] {
        scene.report(&user(), "a", true, |report| report.server_layer = told);
        scene.pass(&user()).await;
        assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_that_cannot_be_read_are_unknown() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    scene.store.faults.set_down(true);
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "Unknown/EtcdUnavailable");
    assert_eq!(summary(&scene), ("?/1".into(), "unknown".into()));
}

#[tokio::test(start_paused = true)]
async fn breakers_and_unknown_commands_are_named() {
    let scene = published(&[("a", true), ("b", true)]).await;
    let breaker = |command: &str, state| BreakerReport {
        command: command.into(),
        state,
        since: Timestamp::from_second(1400).unwrap(),
        reason: "30 % errors of 40 calls".into(),
    };
    scene.report(&user(), "a", true, |report| {
        report.breakers = vec![breaker("find_user", BreakerState::Open), breaker("x", BreakerState::Closed)];
        report.unknown_commands = vec!["getuser".into()];
    });
    scene.report(&user(), "b", true, |report| {
        report.breakers =
            vec![breaker("find_user", BreakerState::Open), breaker("get_user", BreakerState::HalfOpen)];
    });
    scene.pass(&user()).await;
    assert_eq!(summary(&scene).1, "find_user open on 2, get_user half-open on 1");
    let status = scene.get(&user()).unwrap().status.unwrap();
    assert_eq!(status.open_breakers.len(), 3);
    assert_eq!(status.open_breakers[0].instance, "a");
    assert_eq!(status.failures[0].reason, "UnknownCommand");
    assert!(status.failures[0].message.contains("getuser"));
    assert_eq!(
        scene.told(&user(), "Enforced"),
        "True/Enforced",
        "an unknown command is a hint, not a failure"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_shadow_would_have_done_is_told_of_the_published_policy() {
    let scene = published(&[("a", true), ("b", true), ("c", true)]).await;
    let shadow = |calls, would_open, would_refuse| ShadowReport {
        name: "find_user".into(),
        kind: ShadowKind::Command,
        calls,
        would_open,
        would_refuse,
        would_limit: 0,
        would_rate_limit: 0,
        would_time_out: 0,
    };
    let told = |scene: &Scene| scene.get(&user()).unwrap().status.unwrap().summary.unwrap().shadow;
    scene.report(&user(), "a", true, |report| report.shadow = vec![shadow(3000, 1, 12)]);
    scene.report(&user(), "b", true, |report| report.shadow = vec![shadow(1000, 2, 0)]);
    scene.report(&user(), "c", false, |report| report.shadow = vec![shadow(9000, 9, 9)]);
    scene.pass(&user()).await;
    assert_eq!(told(&scene).as_deref(), Some("find_user would have opened 3x, refused 12 of 4000 calls"));
    for instance in ["a", "b"] {
        scene.report(&user(), instance, true, |_| {});
    }
    scene.pass(&user()).await;
    assert_eq!(told(&scene), None);
}

#[tokio::test(start_paused = true)]
async fn a_transition_has_its_time_and_one_event() {
    let scene = published(&[("a", true)]).await;
    let first = scene.condition(&user(), "Ready").last_transition_time;
    scene.cluster.notices.try_lock().unwrap().clear();
    scene.scale(&[("a", true), ("b", true)]);
    scene.pass(&user()).await;
    assert!(scene.cluster.notices.try_lock().unwrap().is_empty(), "a changed message is no transition");
    assert_eq!(scene.condition(&user(), "Ready").last_transition_time, first);

    scene.catalog.faults.set_down(true);
    scene.pass(&user()).await;
    scene.pass(&user()).await;
    let told = scene.cluster.notices.try_lock().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].warning && told[0].reason == "ConsulUnavailable" && told[0].action == "Registered");

    scene.catalog.faults.set_down(false);
    scene.pass(&user()).await;
    let told = scene.cluster.notices.try_lock().unwrap().clone();
    assert!(
        told.iter().skip(1).all(|notice| !notice.warning) && told.len() == 3,
        "Registered and Ready: {told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_is_written_at_most_once_a_second() {
    let scene = published(&[("a", true)]).await;
    scene.report(&user(), "a", true, |_| {});
    scene.pass(&user()).await;
    let resource = std::sync::Arc::new(scene.get(&user()).unwrap());
    scene.report(&user(), "a", false, |_| {});
    let done = crate::reconcile::reconcile(&scene.context, &resource, Timestamp::UNIX_EPOCH).await;
    assert!(
        matches!(done.next, crate::reconcile::Next::After(wait) if wait <= std::time::Duration::from_secs(1))
    );
    assert_eq!(scene.told(&user(), "Enforced"), "True/Enforced");
    scene.pass(&user()).await;
    assert_eq!(scene.told(&user(), "Enforced"), "False/Applying");
}

/// A deposed leader's write that comes late, or a person's: this process believes its own for as long as a cache may be
/// behind, and repairs it then.
#[tokio::test(start_paused = true)]
async fn what_others_write_right_after_us_is_repaired_soon() {
    let scene = Scene::new();
    scene.scale(&[("a", true)]);
    scene.put(&user(), FULL);
    scene.settle(&user()).await;
    scene.scale(&[("a", true), ("b", true)]);
    scene.pass(&user()).await;
    let ours = scene.get(&user()).unwrap().status.unwrap();
    let tamper = |claims: Vec<String>| {
        let mut all = scene.cluster.resources.try_lock().unwrap();
        all.get_mut(&user()).unwrap().status.as_mut().unwrap().claims = claims;
    };
    tamper(Vec::new());
    assert_eq!(scene.pass_after(1, &user()).await.unwrap().next, Next::After(CACHE_LAG));
    scene.pass_after(5, &user()).await;
    assert_eq!(scene.get(&user()).unwrap().status.unwrap().claims, ours.claims);
}
