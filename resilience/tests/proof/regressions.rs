//! Bugs of the ancestors that had no test yet (reliability.md §2); R1 to R8 are in `breaker.rs` and
//! `command.rs` by their names, R8 to R10 also in `cancellation.rs` and `contract.rs`.

use fusebox::deadline::remaining;
use fusebox_policy::policy::CommandPolicy;
use futures::FutureExt;
use tokio::time::advance;

use crate::common::calls::{
    DOWN, Oops, counted, end, fail, fixed, free, limited, ms, pending, succeed, with,
};
use crate::common::{in_flight, metric, outcomes, state};

/// As in `outcomes.rs`, with more threads than the library has places for: those share one.
#[test]
fn r4_no_outcome_is_lost_by_threads_that_share_a_place() {
    let (fusebox, c) = fixed(free());
    let threads = 4 * std::thread::available_parallelism().map_or(4, usize::from).max(4);
    let start = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                for _ in 0..2000 {
                    end(&c, Ok(1)).now_or_never().unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(outcomes(&fusebox, "success"), 2000 * threads as u64);
}

/// hystrix-go and others tell a probe by the state that its end finds.
#[tokio::test(start_paused = true)]
async fn r1_a_probe_of_an_earlier_half_open_state_decides_nothing_in_a_later_one() {
    let two = || with(|b| b.half_open_probes = 2.try_into().unwrap());
    let (fusebox, c) = fixed(CommandPolicy { timeout_ms: None, ..two() });
    for late in [Ok(1), Err(DOWN)] {
        fail(&c, 4).await;
        advance(ms(1000)).await;
        let (tell, first) = pending(&c).await;
        fail(&c, 1).await;
        assert_eq!(state(&fusebox), 2, "the second probe failed");
        advance(ms(1000)).await;
        succeed(&c, 1).await;
        tell.send(late).unwrap();
        let _ = first.await.unwrap();
        assert_eq!(state(&fusebox), 1, "one of two has succeeded");
        succeed(&c, 1).await;
        assert_eq!(state(&fusebox), 0);
    }
    assert_eq!(metric(&fusebox, "breaker_stale_outcomes_total{command=\"c\"}"), 2);
}

/// failsafe-go leaked the contexts of calls that were cancelled.
#[tokio::test(start_paused = true)]
async fn r10_a_thousand_cancelled_calls_hold_no_permit() {
    let (fusebox, c) = fixed(limited(1));
    for n in 1..=1000 {
        let (_tell, call) = pending(&c).await;
        assert_eq!(in_flight(&fusebox), 1);
        call.abort();
        call.await.unwrap_err();
        assert_eq!((in_flight(&fusebox), outcomes(&fusebox, "cancelled"), counted(&fusebox)), (0, n, n));
    }
}

/// failsafe-go's interceptor lost what belonged to the request: here the deadline, over clones and
/// across layers, and none of it stays behind on the thread.
#[tokio::test(start_paused = true)]
async fn r10_the_deadline_of_a_request_reaches_its_calls_and_no_others() {
    let timed = |millis: u64| CommandPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..free() };
    let ((_a, outer), (_b, inner)) = (fixed(timed(100)), fixed(timed(500)));
    let seen = outer.call(async || {
        tokio::time::sleep(ms(30)).await;
        let inside = inner.call(async || Ok::<_, Oops>(remaining())).await.unwrap();
        Ok::<_, Oops>((inside, remaining()))
    });
    let beside = async {
        tokio::time::sleep(ms(30)).await;
        remaining()
    };
    let (seen, beside) = futures::join!(seen, beside);
    assert_eq!((seen.unwrap(), beside), ((Some(ms(70)), Some(ms(70))), None));
    assert_eq!(remaining(), None);
    let hung = outer.call(std::future::pending::<Result<u8, Oops>>).await;
    assert!(hung.is_err());
    assert_eq!(remaining(), None);
}
