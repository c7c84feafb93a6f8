//! The order in which a process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::super::decide::Loss;
use super::super::{End, supervise};

/// An election that notes whether it was told to leave.
fn election(left: &Arc<AtomicBool>) -> (watch::Sender<bool>, impl Future<Output = Result<(), Loss>> + use<>) {
    let (leave, mut told) = watch::channel(false);
    let left = left.clone();
    let election = async move {
        told.wait_for(|leave| *leave).await.unwrap();
        left.store(true, SeqCst);
        Ok(())
    };
    (leave, election)
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_released_after_the_last_effect() {
    let left = Arc::<AtomicBool>::default();
    let (leave, election) = election(&left);
    let seen = left.clone();
    let work = async move {
        sleep(Duration::from_secs(3)).await;
        assert!(!seen.load(SeqCst), "an effect is still in flight");
        Ok(End::Drained)
    };
    supervise(election, leave, work).await.unwrap();
    assert!(left.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_in_flight_keeps_the_lease() {
    let left = Arc::<AtomicBool>::default();
    let (leave, election) = election(&left);
    supervise(election, leave, async { Ok(End::CutOff) }).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!left.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_process_and_drops_its_work() {
    let (running, dropped) = oneshot::channel::<()>();
    let work = async move {
        let _running = running;
        std::future::pending().await
    };
    let lost = async { Err(Loss::Taken("other".into())) };
    let told = supervise(lost, watch::Sender::new(false), work).await.unwrap_err().to_string();
    assert!(told.contains("taken by other") && told.contains("this process ends"), "{told}");
    assert!(dropped.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_released_holds_up_no_end() {
    let start = Instant::now();
    let never = std::future::pending::<Result<(), Loss>>();
    supervise(never, watch::Sender::new(false), async { Ok(End::Drained) }).await.unwrap();
    assert!(Instant::now() - start <= Duration::from_secs(5));
}
