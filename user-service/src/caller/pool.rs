//! Connections to the instances of a service, used in turn.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tonic::transport::{Channel, Endpoint};

/// One connection to each known instance.
#[derive(Debug, Default)]
pub(super) struct Pool {
    members: ArcSwap<Vec<(SocketAddr, Channel)>>,
    turn: AtomicUsize,
}

impl Pool {
    /// The next instance's connection. None: no instance is known, and nobody should wait for one.
    pub(super) fn next(&self) -> Option<Channel> {
        let members = self.members.load();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (_, channel) = members.get(turn.checked_rem(members.len())?)?;
        Some(channel.clone())
    }

    /// Knows exactly these instances from now on. Connections to those that stay are kept, the others end with
    /// their last request.
    pub(super) fn replace(&self, addresses: &[SocketAddr]) {
        let old = self.members.load();
        let kept = |address: &SocketAddr| old.iter().find(|(known, _)| known == address).cloned();
        let members = addresses.iter().map(|at| kept(at).unwrap_or_else(|| (*at, connect(*at))));
        self.members.store(members.collect::<Vec<_>>().into());
    }

    /// The known instances.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.load().iter().map(|(address, _)| *address).collect()
    }
}

/// Connects with the first request, and again whenever the connection is lost.
fn connect(address: SocketAddr) -> Channel {
    // A socket address is always a valid authority.
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap_or_else(|_| Endpoint::from_static("http://invalid.invalid"))
        .connect_timeout(Duration::from_millis(500))
        // A node that vanished without a word is noticed.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_lazy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_an_empty_pool() {
        assert!(Pool::default().next().is_none());
    }

    #[tokio::test]
    async fn knows_exactly_what_it_was_told_last() {
        let pool = Pool::default();
        let [a, b] = [SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2))];
        pool.replace(&[a, b]);
        pool.replace(&[b]);
        assert_eq!(pool.addresses(), [b]);
        pool.replace(&[]);
        assert!(pool.next().is_none());
    }
}
