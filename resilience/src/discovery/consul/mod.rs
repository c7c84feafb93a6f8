//! Consul's catalog as a source: one blocking query per name.
//!
//! The query is `/v1/health/service/<name>` without `passing`: only so are the checks to be seen that tell an
//! instance that fails from one for which [nobody vouches](answer) any more.
//!
//! It is asked in Consul's default mode, which the leader answers. `stale` would spare the leader a parked
//! request for each name and process, but a server that is cut off answers then with what it knew, for ever
//! and without an error, and two servers that differ make the index jump back and forth. `consistent` costs
//! the leader a round of its quorum for each answer, to close a gap of moments in which an old leader does not
//! know yet that it was deposed: for a list that is always a little late anyway that is nothing. While there
//! is no leader queries fail, and the last list stays.

mod answer;
mod belief;
mod config;
mod http;
mod micro;
mod pace;

use std::sync::Arc;

use tokio::time::sleep;

use super::{Following, Source, Teller};
use crate::clock::exact;
use belief::{Belief, Verdict};
pub use config::{ConsulConfig, ConsulConfigError};
use http::Http;
use pace::Pace;

/// The source.
#[derive(Debug)]
pub(super) struct Consul(Arc<Http>);

impl Consul {
    /// Nothing is asked yet.
    pub(super) fn new(config: &ConsulConfig) -> Result<Self, ConsulConfigError> {
        Ok(Self(Arc::new(Http::new(config)?)))
    }
}

impl Source for Consul {
    fn follow(&self, service: &str, told: Teller) -> Following {
        Box::pin(follow(Arc::clone(&self.0), service.to_owned(), told))
    }
}

async fn follow(http: Arc<Http>, service: String, told: Teller) {
    let (mut belief, mut pace) = (Belief::default(), Pace::default());
    loop {
        let asked = http.instances(&service, belief.index(), pace::wait(fastrand::f64())).await;
        let heard = asked.and_then(|(index, body)| Ok((index, body.len(), answer::instances(&body)?)));
        let pause = match heard {
            Ok((index, bytes, found)) => match belief.hear(index, found.is_empty(), exact()) {
                Verdict::Believed => {
                    told.found(found);
                    pace.answered(bytes)
                }
                Verdict::Doubted => {
                    told.failed("Consul lost its data or was away, and lists no instance");
                    pace::AGAIN
                }
            },
            Err(error) => {
                belief.lost();
                told.failed(error);
                pace.failed(fastrand::f64())
            }
        };
        sleep(pause).await;
    }
}
