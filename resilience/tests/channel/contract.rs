//! Tower's contract, on both sides of a channel.

use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use tonic::body::Body;
use tower::Service as _;

use crate::common::command;
use crate::fleet::{Does, Fleet, bad, request};

/// What the probe of `tests/proof/contract.rs` asks of a layer: whoever is called was ready, its clone was asked
/// for itself, and no error of one leaves another unusable.
#[tokio::test(start_paused = true)]
async fn r9_the_channel_keeps_towers_contract() {
    let fleet = Fleet::new(2, command(), |discover| discover.idempotent(|_| true)).await;
    let cx = &mut Context::from_waker(Waker::noop());
    let mut service = fleet.channel.clone();
    for does in [Does::Answer, Does::Fail, Does::Refuse, Does::NotReady, Does::Hang, Does::Answer] {
        fleet.servers[0].now(does);
        for _ in 0..20 {
            let ready = tower::Service::<http::Request<Body>>::poll_ready(&mut service, cx);
            assert!(
                matches!(ready, std::task::Poll::Ready(Ok(()))),
                "what an endpoint is, the channel is not"
            );
            let mut other = service.clone();
            let (one, two) = (service.call(request(Body::empty())), other.call(request(Body::empty())));
            let _ = tokio::join!(one, two);
        }
    }
    fleet.servers.iter().for_each(|server| server.now(Does::Answer));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bad(&fleet.calls(100).await), 0);
    for server in &fleet.servers {
        assert_eq!(server.unready.load(Ordering::SeqCst), 0, "of {} calls", server.calls());
        assert!(server.calls() > 0);
        assert_eq!(server.in_flight.load(Ordering::SeqCst), 0);
    }
}
