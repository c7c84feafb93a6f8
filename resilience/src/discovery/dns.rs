//! Endpoints from DNS: the addresses (A, AAAA) of a host, asked for again and again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Endpoint, Following, Source, Teller};

/// How long one look-up may take: the system's resolver may try several servers, for 5 s each.
const PATIENCE: Duration = Duration::from_secs(15);

/// The addresses of `host:port`, asked for once an interval and a random tenth of it. What cannot be resolved
/// is a failure, never an empty list: DNS does not tell a service without instances from one that it does not
/// know.
#[derive(Debug)]
pub(super) struct Dns(pub(super) Duration);

impl Source for Dns {
    fn follow(&self, service: &str, told: Teller) -> Following {
        let (host, interval) = (service.to_owned(), self.0);
        Box::pin(follow(interval, told, move || {
            let host = host.clone();
            async move { Ok(tokio::net::lookup_host(host).await?.collect()) }
        }))
    }
}

async fn follow<F>(interval: Duration, told: Teller, resolve: impl Fn() -> F)
where
    F: Future<Output = io::Result<Vec<SocketAddr>>>,
{
    loop {
        match timeout(PATIENCE, resolve()).await {
            Ok(Ok(found)) if found.is_empty() => told.failed("DNS has no address"),
            Ok(Ok(found)) => told.found(found.into_iter().map(Endpoint::new).collect()),
            Ok(Err(error)) => told.failed(format_args!("DNS: {error}")),
            Err(_) => told.failed(format_args!("DNS gave no answer within {} s", PATIENCE.as_secs())),
        }
        sleep(interval.mul_f64(1.0 + fastrand::f64() / 10.0)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::exact;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_resolved_again_and_its_last_addresses_stay() {
        let (told, mut known) = Teller::new("user-service:50051");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 50051));
        let following = tokio::spawn(follow(Duration::from_secs(5), told, move || {
            let asked = count.fetch_add(1, Ordering::Relaxed);
            async move {
                match asked {
                    0 => Ok(vec![at(2), at(1)]),
                    1 => Err(io::Error::other("no such host")),
                    2 => Ok(Vec::new()),
                    3 => std::future::pending().await,
                    _ => Ok(vec![at(3)]),
                }
            }
        }));
        let mut seen = Vec::new();
        let begun = exact();
        for _ in 0..5 {
            known.changed().await.unwrap();
            let known = known.borrow_and_update().clone();
            let hosts: Vec<_> = known.endpoints.iter().map(|e| e.address.to_string()).collect();
            seen.push((hosts.join(" "), known.usable("s", Some(Duration::from_mins(1)), exact()).is_ok()));
        }
        let first = ("10.0.0.1:50051 10.0.0.2:50051".to_owned(), true);
        assert_eq!(seen[..4], vec![first; 4]);
        assert_eq!(seen[4], ("10.0.0.3:50051".to_owned(), true));
        let passed = exact().since(begun).as_secs_f64();
        assert!((35.0..37.0).contains(&passed), "four intervals and one look-up that hung: {passed}");
        following.abort();
    }
}
