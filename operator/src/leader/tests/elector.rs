//! The elector over a Lease in memory, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::super::decide::{Loss, Record};
use super::super::standing::Standing;
use super::super::{
    Clock, Elector, LEASE_DURATION, Leadership, LeaseStore, RENEW_DEADLINE, REQUEST_DEADLINE, RETRY_PERIOD,
    Tenure,
};
use crate::metrics::Metrics;
use crate::world::{Ice, LeaseClient, LeaseWorld, Weather, Wire};

/// What a fair network adds to anything.
const FAIR: Duration = Duration::from_millis(200);

struct Replica {
    elector: Arc<Elector<LeaseClient>>,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
    weather: watch::Sender<Weather>,
    leave: watch::Sender<bool>,
    running: JoinHandle<Result<(), Loss>>,
}

fn replica(world: &Arc<LeaseWorld>, me: &str) -> Replica {
    let weather = watch::Sender::new(Weather { latency: Duration::from_millis(20), ..Weather::default() });
    let wire = Wire { weather: weather.clone(), ice: Ice::default() };
    let leadership = Arc::new(Leadership::new(Clock::start()));
    let metrics = Arc::<Metrics>::default();
    let client = LeaseClient { world: world.clone(), wire };
    let elector = Arc::new(Elector::new(client, me, leadership.clone(), metrics.clone()));
    let (leave, told) = watch::channel(false);
    let running = elector.clone();
    let running = tokio::spawn(async move { running.run(told).await });
    Replica { elector, leadership, metrics, weather, leave, running }
}

/// One that leads, and one that stands by.
async fn pair() -> (Arc<LeaseWorld>, Replica, Replica) {
    let world = Arc::<LeaseWorld>::default();
    let first = replica(&world, "first");
    first.leadership.leads().await;
    let second = replica(&world, "second");
    second.leadership.known().await;
    // Somewhere between two renewals.
    sleep(Duration::from_secs_f64(20.0 + 4.0 * fastrand::f64())).await;
    assert!(first.leadership.holds() && !second.leadership.holds());
    (world, first, second)
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_says_who() {
    let (world, first, second) = pair().await;
    assert_eq!(first.leadership.told(), "leads");
    assert_eq!(second.leadership.told(), "standby; first leads");
    assert!(first.metrics.encode().contains("fusebox_leader 1"));
    assert!(second.metrics.encode().contains("fusebox_leader 0"));
    assert_eq!((first.elector.confirm().await, second.elector.confirm().await), (Ok(true), Ok(false)));
    assert_eq!(world.record().unwrap().transitions, 0);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_hands_over_within_a_retry_period() {
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let (world, first, second) = pair().await;
        let start = Instant::now();
        first.leave.send_replace(true);
        assert_eq!(first.running.await.unwrap(), Ok(()));
        assert!(!first.leadership.holds());
        second.leadership.leads().await;
        longest = longest.max(Instant::now() - start);
        assert_eq!(world.record().unwrap().transitions, 1);
        second.running.abort();
    }
    println!("an orderly end: {longest:?} at most, of 100");
    assert!(longest <= RETRY_PERIOD + FAIR, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_hands_over_within_the_lease_and_a_retry_period_and_not_before() {
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let (world, first, second) = pair().await;
        let (crash, renewed) = (Instant::now(), world.written().unwrap());
        first.running.abort();
        second.leadership.leads().await;
        let now = Instant::now();
        longest = longest.max(now - crash);
        let taken = world.tenures().last().unwrap().1;
        assert!(taken - renewed >= LEASE_DURATION, "{:?} after its last renewal", taken - renewed);
        second.running.abort();
    }
    println!("a crash: {longest:?} at most, of 100");
    assert!(longest <= LEASE_DURATION + RETRY_PERIOD + FAIR, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_answer_ends_at_its_deadline() {
    for refuses in [true, false] {
        let (world, first, _second) = pair().await;
        let start = world.written().unwrap();
        first.weather.send_replace(Weather {
            latency: FAIR,
            down: refuses,
            lost: if refuses { 0 } else { 100 },
            ..Weather::default()
        });
        assert_eq!(first.running.await.unwrap(), Err(Loss::Expired));
        let took = Instant::now() - start;
        assert!(took <= RENEW_DEADLINE, "{took:?}");
        assert!(took + RETRY_PERIOD > RENEW_DEADLINE, "it went on for as long as it may: {took:?}");
        assert!(!first.leadership.holds());
        assert!(first.metrics.encode().contains("fusebox_leader 0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_ends_nobody() {
    // It may begin just before a renewal, and a request may hang beyond its end.
    let short = RENEW_DEADLINE.saturating_sub(RETRY_PERIOD + REQUEST_DEADLINE + FAIR);
    for _ in 0..200 {
        let (world, first, second) = pair().await;
        first.weather.send_modify(|weather| weather.down = true);
        sleep(short).await;
        first.weather.send_modify(|weather| weather.down = false);
        sleep(Duration::from_mins(1)).await;
        assert!(first.leadership.holds() && !second.leadership.holds());
        assert_eq!(world.tenures().len(), 1);
        first.running.abort();
        second.running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn another_holder_is_the_end() {
    let (world, first, _second) = pair().await;
    let theirs = Record { holder: "by hand".into(), ..world.record().unwrap() };
    let wire = Wire { weather: watch::Sender::default(), ice: Ice::default() };
    let hand = LeaseClient { world, wire };
    let (_, at) = hand.read().await.unwrap().unwrap();
    hand.write(&theirs, Some(&at)).await.unwrap();
    assert_eq!(first.running.await.unwrap(), Err(Loss::Taken("by hand".into())));
    assert_eq!(first.leadership.standing(), Standing::Standby { leader: "by hand".into() });
}

#[tokio::test(start_paused = true)]
async fn a_label_between_read_and_write_costs_one_renewal() {
    let (world, first, _second) = pair().await;
    for _ in 0..200 {
        world.touch();
        sleep(Duration::from_millis(97)).await;
    }
    assert!(first.leadership.holds());
    assert_eq!(world.tenures().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_made_again_by_who_leads() {
    let world = Arc::<LeaseWorld>::default();
    let alone = replica(&world, "alone");
    alone.leadership.leads().await;
    world.delete();
    sleep(RETRY_PERIOD + FAIR).await;
    assert_eq!(world.record().unwrap().holder, "alone");
    assert!(alone.leadership.holds());
}

#[tokio::test(start_paused = true)]
async fn who_takes_it_without_hearing_so_leads_by_the_next_renewal() {
    let world = Arc::<LeaseWorld>::default();
    for n in 0..50 {
        let one = replica(&world, &format!("one-{n}"));
        one.weather.send_modify(|weather| weather.lost = 40);
        timeout(Duration::from_mins(10), one.leadership.leads()).await.unwrap();
        assert_eq!(world.record().unwrap().holder, format!("one-{n}"));
        one.running.abort();
        world.delete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_leaves_takes_nothing() {
    let (world, first, second) = pair().await;
    second.leave.send_replace(true);
    assert_eq!(second.running.await.unwrap(), Ok(()));
    first.running.abort();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.record().unwrap().holder, "first");
}
