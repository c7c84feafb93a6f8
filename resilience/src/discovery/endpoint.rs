//! One instance of a service.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One instance of a service, as its source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is called.
    pub address: SocketAddr,
    /// What tells it from another instance at the same address, before or after it. Empty: nothing does.
    pub id: String,
    /// Its share of the calls beside others: 2 is twice as many as 1. Never zero.
    pub weight: u16,
    /// Where it runs.
    pub zone: Option<String>,
    /// The version of the service.
    pub version: Option<String>,
    /// What its registration says beside that.
    pub metadata: BTreeMap<String, String>,
    /// The methods that it says it has, as go-micro's services do: `Greeter.Hello`.
    pub methods: Vec<String>,
    /// Nobody vouches for it any more, and nobody says that it is gone.
    pub stale: bool,
}

impl Endpoint {
    /// An endpoint of weight 1, of which no more than the address is known.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            id: String::new(),
            weight: 1,
            zone: None,
            version: None,
            metadata: BTreeMap::new(),
            methods: Vec::new(),
            stale: false,
        }
    }
}
