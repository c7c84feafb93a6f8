//! One kind of trouble each.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::process::Process;
use crate::world::SessionWorld;

const TTL: Duration = Duration::from_hours(1);
const NODE: &str = "fusebox-demo-3";
/// Long enough for a look and what follows.
const BEAT: Duration = Duration::from_secs(31);

fn world() -> Arc<SessionWorld> {
    let world = Arc::new(SessionWorld::new(true));
    world.add_node(NODE);
    world
}

/// The check of the node: is it passing, and does it wait for a session that lives?
fn check(world: &SessionWorld) -> Option<(bool, bool)> {
    let check = world.nodes().into_iter().find(|node| node.name == NODE)?.check?;
    let session = check.session.filter(|session| {
        world.sessions().get(&session.id).is_some_and(|living| living.name == session.name)
    });
    Some((check.passing, session.is_some()))
}

const FINE: Option<(bool, bool)> = Some((true, true));

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_written_for_days() {
    let world = world();
    let (leader, follower) = (Process::start(&world, true, TTL), Process::start(&world, false, TTL));
    sleep(BEAT).await;
    let (writes, before) = (world.writes(), leader.wire.renewals.load(SeqCst));
    assert_eq!((writes, check(&world)), (2, FINE), "a session and a check");
    sleep(TTL * 48).await;
    assert_eq!((world.writes(), world.turned(), check(&world)), (writes, vec![], FINE));
    assert!(leader.wire.renewals.load(SeqCst) - before > 5000, "it was renewed all the time");
    assert_eq!(
        (leader.metrics.late.get(), leader.metrics.armed.get(), leader.metrics.nodes.get()),
        (0, 1, 1)
    );
    assert_eq!(follower.metrics.late.get(), 0);
    assert_eq!(world.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_alone_keeps_what_there_is_and_makes_nothing() {
    let world = world();
    let follower = Process::start(&world, false, TTL);
    sleep(TTL).await;
    assert_eq!((world.writes(), check(&world)), (0, None));
    assert_eq!(follower.metrics.late.get(), 0, "it is the leader's to make one");
    let leader = Process::start(&world, true, TTL);
    sleep(BEAT).await;
    drop(leader);
    sleep(TTL * 10).await;
    assert_eq!((check(&world), world.turned()), (FINE, vec![]));
    follower.leads.send_replace(true);
    world.destroy_session_of(NODE);
    sleep(BEAT).await;
    assert_eq!(check(&world), FINE, "it leads now");
}

#[tokio::test(start_paused = true)]
async fn when_all_are_gone_it_turns_critical_within_two_ttls_and_heals_with_the_first_one_back() {
    let world = world();
    drop({
        let leader = Process::start(&world, true, TTL);
        sleep(BEAT).await;
        leader
    });
    let gone = Instant::now();
    sleep(TTL * 2).await;
    let [turned] = <[_; 1]>::try_from(world.turned()).unwrap();
    assert!(turned.at - gone + BEAT >= TTL && turned.at - gone <= TTL * 2, "{:?}", turned.at - gone);
    assert_eq!(check(&world), Some((false, false)));
    let _leader = Process::start(&world, true, TTL);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(check(&world), FINE, "at once, not after a beat");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_is_made_again_within_a_beat() {
    for (what, harm) in [
        ("a session that somebody ended", SessionWorld::destroy_session_of as fn(&SessionWorld, &str)),
        ("a check that somebody wrote over", SessionWorld::break_check),
        ("a check that somebody registered without a status", SessionWorld::spoil),
        ("a check that somebody removed", SessionWorld::disarm),
        ("everything", |world, _| world.wipe()),
        ("a node that was removed and came back", |world, node| {
            world.reap_node(node);
            world.add_node(node);
        }),
    ] {
        let world = world();
        let _leader = Process::start(&world, true, TTL);
        sleep(BEAT).await;
        assert_eq!(check(&world), FINE, "{what}");
        harm(&world, NODE);
        assert_ne!(check(&world), FINE, "{what}: no harm was done");
        sleep(BEAT).await;
        assert_eq!(check(&world), FINE, "{what}");
        sleep(TTL * 3).await;
        assert_eq!(world.sessions().len(), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_reaped_leaves_nothing_and_is_not_brought_back() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    sleep(BEAT).await;
    world.reap_node(NODE);
    let writes = world.writes();
    sleep(TTL).await;
    assert_eq!((world.nodes(), world.sessions().len(), world.writes()), (vec![], 0, writes));
    assert_eq!((leader.metrics.nodes.get(), leader.metrics.late.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn another_ttl_in_the_settings_is_another_session_and_the_old_one_ends_unnoticed() {
    let world = world();
    drop({
        let leader = Process::start(&world, true, TTL);
        sleep(BEAT).await;
        leader
    });
    let _leader = Process::start(&world, true, TTL / 2);
    sleep(BEAT).await;
    assert_eq!((check(&world), world.sessions().len()), (FINE, 2));
    sleep(TTL * 2).await;
    assert_eq!((check(&world), world.sessions().len(), world.turned()), (FINE, 1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_cannot_be_registered_costs_one_session_however_often_it_is_tried() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    leader.wire.refused.store(true, SeqCst);
    sleep(TTL * 5).await;
    assert_eq!((world.sessions().len(), world.writes(), check(&world)), (1, 1, None));
    leader.wire.refused.store(false, SeqCst);
    sleep(BEAT).await;
    assert_eq!((world.sessions().len(), check(&world)), (1, FINE));
}

#[tokio::test(start_paused = true)]
async fn a_registration_whose_answer_is_lost_is_no_second_session() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    leader.wire.slow.store(1000, SeqCst);
    // The look, the probe and the session took a second each: the registration is there, its answer is not.
    sleep(Duration::from_millis(3700)).await;
    assert_eq!(check(&world), FINE);
    leader.wire.deaf.store(true, SeqCst);
    sleep(Duration::from_secs(1)).await;
    leader.wire.deaf.store(false, SeqCst);
    sleep(TTL).await;
    assert_eq!((check(&world), world.sessions().len(), world.writes()), (FINE, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_ttl_without_a_renewal_is_a_warning_that_ends() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    sleep(BEAT).await;
    leader.wire.cut.store(true, SeqCst);
    sleep(TTL / 5).await;
    assert_eq!(leader.metrics.late.get(), 0);
    sleep(TTL / 10).await;
    assert_eq!(leader.metrics.late.get(), 1);
    assert!(leader.metrics.unrenewed.get() >= 900, "{}", leader.metrics.unrenewed.get());
    assert_eq!((check(&world), world.turned()), (FINE, vec![]), "a warning is no harm");
    leader.wire.cut.store(false, SeqCst);
    sleep(BEAT).await;
    assert_eq!((leader.metrics.late.get(), world.writes()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_renewed_alone_is_a_warning_too() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    leader.wire.refused.store(true, SeqCst);
    sleep(TTL / 4 + BEAT).await;
    assert_eq!((leader.metrics.late.get(), leader.metrics.armed.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn where_consul_does_not_support_it_there_is_none() {
    let world = Arc::new(SessionWorld::new(false));
    world.add_node(NODE);
    let leader = Process::start(&world, true, TTL);
    sleep(TTL * 24).await;
    assert_eq!((world.writes(), check(&world)), (0, None));
    assert_eq!(
        (leader.metrics.late.get(), leader.metrics.armed.get(), leader.metrics.nodes.get()),
        (0, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn another_version_of_consul_is_noticed() {
    for (away, within) in [(false, Duration::from_hours(1) + BEAT), (true, BEAT)] {
        let world = Arc::new(SessionWorld::new(false));
        world.add_node(NODE);
        let leader = Process::start(&world, true, TTL);
        sleep(BEAT).await;
        if away {
            leader.wire.cut.store(true, SeqCst);
            sleep(BEAT).await;
            leader.wire.cut.store(false, SeqCst);
        }
        world.supported.store(true, SeqCst);
        sleep(within).await;
        assert_eq!(check(&world), FINE, "it was away: {away}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_too_late_is_not_used() {
    let world = world();
    let leader = Process::start(&world, true, TTL);
    // A process that sleeps between its steps, or a Consul that does.
    leader.wire.slow.store(u64::try_from(TTL.as_millis()).unwrap(), SeqCst);
    sleep(TTL * 20).await;
    assert_eq!((check(&world), world.turned()), (None, vec![]));
    assert!(world.writes() > 0 && world.sessions().len() <= 1, "{:?}", world.sessions());
    leader.wire.slow.store(0, SeqCst);
    sleep(TTL * 4).await;
    assert_eq!((check(&world), world.turned(), world.sessions().len()), (FINE, vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn with_a_ttl_of_zero_those_there_are_go() {
    let world = world();
    drop({
        let leader = Process::start(&world, true, TTL);
        sleep(BEAT).await;
        leader
    });
    let follower = Process::start(&world, false, Duration::ZERO);
    sleep(BEAT).await;
    assert_eq!(check(&world), FINE, "not by a follower");
    let leader = Process::start(&world, true, Duration::ZERO);
    sleep(TTL * 3).await;
    assert_eq!((check(&world), world.sessions().len(), world.turned()), (None, 0, vec![]));
    assert_eq!((leader.metrics.late.get(), follower.metrics.late.get()), (0, 0));
}
