//! The documents that cross a process boundary, all JSON.
//!
//! A reader refuses a [`PolicyDocument`] that it does not fully understand: an unknown field or a
//! newer [`SCHEMA`] means a rule it could not enforce. A [`Report`] is read leniently: what a newer
//! instance adds is of no concern to an older operator.
//!
//! For other languages they are described by the JSON Schemas in `docs/reference`, generated from here.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::policy::{Inbound, Outbound, Policy, Shadow};

/// The version of the policy document. It is raised by any change of meaning.
pub const SCHEMA: u32 = 1;

/// The largest policy document a reader accepts, in bytes. etcd's own limit is 1.5 MiB a request.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// How many unknown commands, breakers, shadows and outliers a report names.
pub const MAX_REPORTED: usize = 16;

/// A digest of a policy's meaning: equal policies have equal hashes, whatever else of their resource
/// differs. 64 bits of SHA-256 in hex: it tells revisions of one resource apart, it proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct PolicyHash(String);

impl PolicyHash {
    /// The hash of a policy under this [`SCHEMA`].
    pub fn of(policy: &Policy) -> Self {
        // Field order is the declaration's and maps are sorted, so equal policies give equal bytes.
        let bytes = serde_json::to_vec(&(SCHEMA, policy)).unwrap_or_default();
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(bytes)[..8]);
        Self(format!("{:016x}", u64::from_be_bytes(first)))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the operator publishes for a resource and its instances run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    /// The version of this schema. A reader refuses a document with another.
    #[cfg_attr(feature = "crd", schemars(extend("const" = SCHEMA)))]
    pub schema: u32,
    /// The UID of the resource.
    pub uid: String,
    /// The hash of the policy below, 16 hexadecimal digits: what a report gives back.
    #[cfg_attr(feature = "crd", schemars(extend("pattern" = "^[0-9a-f]{16}$")))]
    pub hash: PolicyHash,
    /// Calls to the service.
    pub inbound: Inbound,
    /// Calls it makes.
    pub outbound: Outbound,
    /// A candidate that never acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// Why a policy document was refused. The last good policy stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Larger than [`MAX_POLICY_BYTES`].
    #[error("the document has {0} bytes, more than {MAX_POLICY_BYTES}")]
    TooLarge(usize),
    /// Written for another version of the schema.
    #[error("the document has schema {0}, this library reads {SCHEMA}: upgrade the older of the two")]
    Schema(u32),
    /// Not a policy document.
    #[error("not a policy document: {0}")]
    Malformed(String),
    /// Each value is in range, but they contradict each other.
    #[error("contradictory: {0}")]
    Contradictory(String),
    /// The hash is not that of the policy: the document was edited or cut.
    #[error("the hash says {said}, the policy's is {is}: the document was not written whole")]
    Hash {
        /// In the document.
        said: PolicyHash,
        /// Computed.
        is: PolicyHash,
    },
}

impl PolicyDocument {
    /// The document of a resource's policy.
    pub fn new(uid: impl Into<String>, policy: Policy) -> Self {
        let hash = PolicyHash::of(&policy);
        let Policy { inbound, outbound, shadow } = policy;
        Self { schema: SCHEMA, uid: uid.into(), hash, inbound, outbound, shadow }
    }

    /// The bytes to publish.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads and checks a document whole.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refused> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let malformed = |error: serde_json::Error| Refused::Malformed(error.to_string());
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(Refused::TooLarge(bytes.len()));
        }
        let Versioned { schema } = serde_json::from_slice(bytes).map_err(malformed)?;
        if schema != SCHEMA {
            return Err(Refused::Schema(schema));
        }
        let document: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        let is = PolicyHash::of(&document.policy());
        if is != document.hash {
            return Err(Refused::Hash { said: document.hash, is });
        }
        match document.policy().violations().as_slice() {
            [] => Ok(document),
            found => Err(Refused::Contradictory(found.join("; "))),
        }
    }

    /// The policy in it.
    pub fn policy(&self) -> Policy {
        let (inbound, outbound) = (self.inbound.clone(), self.outbound.clone());
        Policy { inbound, outbound, shadow: self.shadow.clone() }
    }
}

/// What an instance says of itself, under a lease: the key vanishes with the instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name a person knows the instance by: its pod's name, or its address.
    pub instance: String,
    /// Made anew at every start of the process.
    pub boot: String,
    /// The library and its version.
    pub library: String,
    /// The policy in force. None: the compiled-in default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<PolicyHash>,
    /// Since when it is in force, as RFC 3339 writes it.
    #[cfg_attr(feature = "crd", schemars(with = "String", extend("format" = "date-time")))]
    pub applied_at: Timestamp,
    /// The newest document, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// Whether the code has asked for the server layer, without which no inbound policy is enforced. None:
    /// a library from before it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_layer: Option<bool>,
    /// Commands that the code calls and the policy does not name, at most 16 ([`MAX_REPORTED`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_commands: Vec<String>,
    /// Breakers that are not closed, at most 16 ([`MAX_REPORTED`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "those_known")]
    pub breakers: Vec<BreakerReport>,
    /// What the shadow policy would have done, for its commands and methods that would have acted, at most
    /// 16 ([`MAX_REPORTED`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "those_known")]
    pub shadow: Vec<ShadowReport>,
    /// Endpoints of other services that it calls no more for now, at most 16 ([`MAX_REPORTED`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "those_known")]
    pub outliers: Vec<OutlierReport>,
}

/// Those of a list that this version knows: a newer instance's breaker in a state of which we have not heard must
/// not make its whole report unreadable.
fn those_known<'de, T: DeserializeOwned, D: Deserializer<'de>>(list: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<serde_json::Value>::deserialize(list)?;
    Ok(all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}

/// A document that an instance refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Its hash, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<PolicyHash>,
    /// Why, for a person.
    pub reason: String,
}

/// A breaker that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BreakerReport {
    /// The command it guards.
    pub command: String,
    /// Its state.
    pub state: BreakerState,
    /// When it entered the state.
    #[cfg_attr(feature = "crd", schemars(with = "String", extend("format" = "date-time")))]
    pub since: Timestamp,
    /// Why it opened, for a person: `30 % errors of 40 calls`.
    pub reason: String,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// Probes pass.
    HalfOpen,
}

/// What the shadow policy would have done to the calls of one command or method, counted since the process first
/// had one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShadowReport {
    /// The command, or the method as its match is written: `user.v1.UserService/GetUser`.
    pub name: String,
    /// Which of the two.
    pub kind: ShadowKind,
    /// Calls that it decided on.
    #[serde(default)]
    pub calls: u64,
    /// How often its breaker would have opened.
    #[serde(default)]
    pub would_open: u64,
    /// Calls that its breaker would have refused.
    #[serde(default)]
    pub would_refuse: u64,
    /// Calls above its concurrency limit.
    #[serde(default)]
    pub would_limit: u64,
    /// Calls above its rate limit.
    #[serde(default)]
    pub would_rate_limit: u64,
    /// Calls longer than its timeout.
    #[serde(default)]
    pub would_time_out: u64,
}

/// An endpoint that an instance has ejected: it does not answer that instance well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutlierReport {
    /// The name that it was found under.
    pub service: String,
    /// The command whose policy ejected it.
    pub command: String,
    /// Its address and port.
    pub endpoint: String,
    /// When it was ejected.
    #[cfg_attr(feature = "crd", schemars(with = "String", extend("format" = "date-time")))]
    pub since: Timestamp,
    /// Why, for a person: `5 failures in a row`.
    pub reason: String,
}

/// What a shadow policy decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ShadowKind {
    /// A call that the service makes.
    Command,
    /// A call to the service.
    Method,
}

/// How many instances share a rate limit of scope Service. It is no part of the policy, as it changes with
/// every instance; unknown fields are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// Ready by their endpoint.
    #[cfg_attr(feature = "crd", schemars(range(max = u32::MAX)))]
    pub ready: u32,
}

/// The value of an epoch key: who may write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Raised by one with every new writer.
    pub epoch: u64,
    /// The writer, unique for each of its starts.
    pub holder: String,
    /// The Kubernetes cluster that it writes for; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub home: String,
}

/// The value of a claim: which resource of which cluster holds the claimed thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The cluster's name.
    pub cluster: String,
    /// The resource's UID.
    pub uid: String,
}

impl FromStr for PolicyHash {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents in testdata/ are contracts with instances already running: a change that makes
    /// one of them read or write differently needs a new [`SCHEMA`].
    const GOLDEN: &str = include_str!("../testdata/policy.json");

    #[test]
    fn the_golden_policy_reads_and_writes_the_same_bytes() {
        let document = PolicyDocument::from_json(GOLDEN.trim().as_bytes()).unwrap();
        assert_eq!(document.to_json(), GOLDEN.trim());
        assert_eq!(document.policy().inbound.methods.len(), 2);
        assert_eq!(document.policy().outbound.commands["find_user"].timeout_ms.map(u64::from), Some(250));
    }

    #[test]
    fn the_golden_report_reads_and_writes_the_same_bytes() {
        let golden = include_str!("../testdata/report.json").trim();
        let report: Report = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), golden);
    }

    /// The golden report of before.
    #[test]
    fn a_report_that_does_not_tell_of_the_server_layer_is_read() {
        let golden = include_str!("../testdata/report.json").trim();
        let old = golden.replace("\"serverLayer\":true,", "");
        let report: Report = serde_json::from_str(&old).unwrap();
        assert_eq!(report.server_layer, None);
        assert_eq!(serde_json::to_string(&report).unwrap(), old);
    }

    /// Every field that a policy may hold, as it comes from a resource.
    #[cfg(feature = "crd")]
    #[test]
    fn the_golden_policy_of_all_fields_reads_and_writes_the_same_bytes() {
        let golden = include_str!("../testdata/all-fields.json").trim();
        let spec = serde_saphyr::from_str(include_str!("../testdata/all-fields.yaml")).unwrap();
        let document =
            PolicyDocument::new("7a0e3c52-0f0c-4a53-9d63-1d6a5b1f4c11", crate::merge::policy(&spec).unwrap());
        assert_eq!(document.to_json(), golden);
        assert_eq!(PolicyDocument::from_json(golden.as_bytes()), Ok(document));
    }

    #[test]
    fn a_shadow_is_part_of_the_hash() {
        let golden = include_str!("../testdata/all-fields.json").trim();
        let edited = golden.replace("\"timeoutMs\":220", "\"timeoutMs\":221");
        assert!(edited != golden);
        assert!(matches!(PolicyDocument::from_json(edited.as_bytes()), Err(Refused::Hash { .. })));
    }

    #[test]
    fn the_golden_report_of_a_shadow_reads_and_writes_the_same_bytes() {
        let golden = include_str!("../testdata/report-shadow.json").trim();
        let report: Report = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), golden);
        assert_eq!((report.shadow[0].kind, report.shadow[1].would_rate_limit), (ShadowKind::Command, 4));
    }

    #[test]
    fn the_golden_report_of_outliers_reads_and_writes_the_same_bytes() {
        let golden = include_str!("../testdata/report-outliers.json").trim();
        let report: Report = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), golden);
        assert_eq!(report.outliers[0].endpoint, "10.1.0.7:50051");
    }

    #[test]
    fn a_fleet_is_read_leniently() {
        let fleet: Fleet = serde_json::from_str(r#"{"ready":3,"zones":2}"#).unwrap();
        assert_eq!(serde_json::to_string(&fleet).unwrap(), r#"{"ready":3}"#);
    }

    #[test]
    fn a_changed_number_is_noticed() {
        let edited = GOLDEN.replace("\"timeoutMs\":250", "\"timeoutMs\":251");
        assert!(matches!(PolicyDocument::from_json(edited.as_bytes()), Err(Refused::Hash { .. })));
    }

    #[test]
    fn a_newer_schema_is_refused_by_its_number() {
        let newer =
            GOLDEN.replace("\"schema\":1", "\"schema\":2").replace("\"inbound\"", "\"somethingElse\"");
        assert_eq!(PolicyDocument::from_json(newer.as_bytes()), Err(Refused::Schema(2)));
    }

    #[test]
    fn a_cut_document_is_refused() {
        assert!(matches!(PolicyDocument::from_json(&GOLDEN.as_bytes()[..100]), Err(Refused::Malformed(_))));
    }

    #[test]
    fn a_breaker_in_a_state_of_a_newer_library_is_left_out() {
        let golden = include_str!("../testdata/report.json").trim();
        let report: Report = serde_json::from_str(golden).unwrap();
        let newer = golden.replacen("\"state\":\"Open\"", "\"state\":\"Ajar\"", 1);
        assert!(newer != golden);
        let read: Report = serde_json::from_str(&newer).unwrap();
        assert_eq!(read.breakers.len(), report.breakers.len() - 1);
        assert_eq!(read.hash, report.hash);
    }

    #[test]
    fn a_field_of_a_newer_library_in_a_report_is_ignored() {
        let golden = include_str!("../testdata/report.json").trim();
        let newer = golden.replacen('{', "{\"weather\":{},", 1);
        assert!(serde_json::from_str::<Report>(&newer).is_ok());
    }
}
