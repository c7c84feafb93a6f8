//! The metrics of channels.

use std::collections::BTreeMap;

use fusebox_policy::wire::MAX_REPORTED;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{family, load};
use crate::fusebox::Shared;

/// What there is of one service under one command.
#[derive(Clone, Copy, Default)]
struct Counts {
    known: u64,
    stale: u64,
    ejected: u64,
    ejections: u64,
}

pub(super) fn endpoints(shared: &Shared, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
    // Two channels of one service and command see the same endpoints, each for itself.
    let mut all = BTreeMap::<(String, String), Counts>::new();
    for balance in shared.channels.all() {
        let (known, ejected) = balance.counts();
        let counts = all.entry((balance.service.clone(), balance.command.circuit.name.clone())).or_default();
        counts.known = counts.known.max(known as u64);
        counts.stale = counts.stale.max(balance.stale() as u64);
        counts.ejected = counts.ejected.max(ejected as u64);
        counts.ejections += load(&balance.ejections);
    }
    let of = |count: fn(&Counts) -> u64| {
        all.iter().map(move |((service, command), counts)| {
            ([("service", service.clone()), ("command", command.clone())], count(counts))
        })
    };
    family(encoder, "endpoints", "Endpoints known", MetricType::Gauge, of(|counts| counts.known))?;
    let help = "Endpoints that nobody vouches for any more, and that are called all the same";
    family(encoder, "endpoints_stale", help, MetricType::Gauge, of(|counts| counts.stale))?;
    let help = "Endpoints that are not called for now";
    family(encoder, "endpoints_ejected", help, MetricType::Gauge, of(|counts| counts.ejected))?;
    let help = "Breakers of endpoints that opened, of the channels that live";
    family(encoder, "endpoint_ejections", help, MetricType::Counter, of(|counts| counts.ejections))?;
    // At most so many: endpoints come and go.
    let outliers = shared.channels.outliers().into_iter().take(MAX_REPORTED).map(|outlier| {
        let labels = [
            ("service", outlier.service),
            ("command", outlier.command),
            ("endpoint", outlier.endpoint.to_string()),
            ("reason", outlier.reason),
        ];
        (labels, u64::try_from(outlier.since.as_second()).unwrap_or_default())
    });
    let help = "Since when an endpoint is not called, seconds since the epoch; those that are so for longest";
    family(encoder, "endpoint_ejected_timestamp_seconds", help, MetricType::Gauge, outliers)
}
