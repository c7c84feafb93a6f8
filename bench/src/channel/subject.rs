//! The channels that are compared, over the same endpoints.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use fusebox::channel::Discover;
use fusebox::discovery::Discovery;
use fusebox::{Command, Fusebox, HttpService};
use serde_json::json;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tower::Layer as _;

/// What the calls go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A plain tonic channel for each endpoint, one of them at random for each call
    Tonic,
    /// The same, in turn: callers that wait for their answers go round in convoys then, whose requests are written
    /// together
    TonicInTurn,
    /// tonic's own balanced channel
    TonicBalance,
    /// The discovered channel, under an empty policy
    Fusebox,
    /// A plain tonic channel for each endpoint, one at random, under the command's policy by its layer
    TonicLayer,
    /// The discovered channel under the command's policy: breaker and limit for each endpoint
    FuseboxPolicy,
    /// The same, and the command's layer around it
    FuseboxLayer,
}

pub const ALL: [Kind; 7] = [
    Kind::Tonic,
    Kind::TonicInTurn,
    Kind::TonicBalance,
    Kind::Fusebox,
    Kind::TonicLayer,
    Kind::FuseboxPolicy,
    Kind::FuseboxLayer,
];

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tonic => "tonic",
            Self::TonicInTurn => "tonic-in-turn",
            Self::TonicBalance => "tonic-balance",
            Self::Fusebox => "fusebox",
            Self::TonicLayer => "tonic-layer",
            Self::FuseboxPolicy => "fusebox-policy",
            Self::FuseboxLayer => "fusebox-layer",
        }
    }

    /// The fixed channel under the same policy.
    pub const fn fixed(self) -> Option<Self> {
        match self {
            Self::Tonic | Self::TonicLayer => None,
            Self::TonicInTurn | Self::TonicBalance | Self::Fusebox => Some(Self::Tonic),
            Self::FuseboxPolicy | Self::FuseboxLayer => Some(Self::TonicLayer),
        }
    }

    pub const fn window(self) -> &'static str {
        match self {
            Self::Tonic | Self::TonicInTurn | Self::TonicBalance | Self::Fusebox => "none (no policy)",
            Self::TonicLayer | Self::FuseboxPolicy | Self::FuseboxLayer => {
                "time, 10 s (breaker, limit, timeout)"
            }
        }
    }

    pub const fn package(self) -> &'static str {
        match self {
            Self::Tonic | Self::TonicInTurn | Self::TonicBalance => "tonic",
            _ => "fusebox",
        }
    }
}

/// A client over a channel, or one for each endpoint.
pub enum Subject {
    Tonic(Vec<Grpc<Channel>>),
    TonicInTurn(Vec<Grpc<Channel>>),
    Fusebox(Grpc<fusebox::channel::Channel>),
    TonicLayer(Vec<Grpc<HttpService<Channel>>>),
    FuseboxLayer(Grpc<HttpService<fusebox::channel::Channel>>),
}

impl Subject {
    /// Needs a runtime.
    pub fn new(kind: Kind, addresses: &[SocketAddr]) -> Result<Self> {
        let each = || addresses.iter().map(|address| anyhow::Ok(transport(*address)?.connect_lazy()));
        let command = || anyhow::Ok(fusebox(true)?.command(COMMAND));
        let discovered = |policy| anyhow::Ok(channel(&fusebox(policy)?, addresses));
        Ok(match kind {
            Kind::Tonic => Self::Tonic(each().map(|channel| Ok(Grpc::new(channel?))).collect::<Result<_>>()?),
            Kind::TonicInTurn => {
                Self::TonicInTurn(each().map(|channel| Ok(Grpc::new(channel?))).collect::<Result<_>>()?)
            }
            Kind::TonicBalance => {
                let list = addresses.iter().map(|address| transport(*address)).collect::<Result<Vec<_>>>()?;
                Self::Tonic(vec![Grpc::new(Channel::balance_list(list.into_iter()))])
            }
            Kind::Fusebox => Self::Fusebox(Grpc::new(discovered(false)?)),
            Kind::FuseboxPolicy => Self::Fusebox(Grpc::new(discovered(true)?)),
            Kind::TonicLayer => {
                let layer = command()?.http_layer();
                let layered = each().map(|channel| Ok(Grpc::new(layer.layer(channel?))));
                Self::TonicLayer(layered.collect::<Result<_>>()?)
            }
            Kind::FuseboxLayer => {
                let fusebox = fusebox(true)?;
                let command: Command = fusebox.command(COMMAND);
                let layered = command.http_layer().layer(channel(&fusebox, addresses));
                Self::FuseboxLayer(Grpc::new(layered))
            }
        })
    }
}

const COMMAND: &str = "bench";

/// With a policy that never refuses a call of ours, or one that asks for nothing.
pub fn fusebox(policy: bool) -> Result<Fusebox> {
    let command = if policy {
        json!({
            "timeoutMs": 10_000, "maxConcurrentRequests": 10_000,
            "circuitBreaker": {
                "errorPercentThreshold": 50, "requestVolumeThreshold": 20, "sleepWindowMs": 5000,
                "rollingWindowMs": 10_000, "halfOpenProbes": 1,
            },
        })
    } else {
        json!({})
    };
    let policy =
        json!({"inbound": {"default": {}}, "outbound": {"default": {}, "commands": {COMMAND: command}}});
    Ok(Fusebox::fixed(serde_json::from_value(policy)?))
}

fn channel(fusebox: &Fusebox, addresses: &[SocketAddr]) -> fusebox::channel::Channel {
    let discovery = Discovery::fixed(addresses.iter().copied());
    discover(fusebox, &discovery).channel()
}

/// The service by its name, under the command's policy.
pub fn discover(fusebox: &Fusebox, discovery: &Discovery) -> Discover {
    fusebox.discover_in(discovery, "hello").command(COMMAND)
}

/// As the discovered channel sets its connections up.
pub fn transport(address: SocketAddr) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10))))
}

/// The n-th loopback address.
pub fn address(n: u32, port: u16) -> SocketAddr {
    (Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + n), port).into()
}
