//! What a person can set: each option as a flag and as a variable of the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use fusebox::etcd::EtcdConfig;

use crate::consul::ConsulConfig;
use crate::reconcile::Settings;
use crate::reconcile::validate::AllowedPrefixes;

/// The longest name of a cluster; the chart's schema says the same.
const MAX_CLUSTER: usize = 32;
/// Its keys in etcd would be another's claims.
const RESERVED_CLUSTER: &str = "claims";

/// The Fusebox operator: makes every ResilientService of a Kubernetes cluster so in Consul, Traefik and
/// etcd, and tells in its status what is in force.
///
/// It finds the cluster as kubectl does: in a pod by its service account, else by KUBECONFIG.
///
/// `fusebox-operator etcd-access --help` tells of the other thing that this program does: making the users and
/// roles that Fusebox needs in etcd.
#[derive(Clone, Debug, Parser)]
// The doc comments are what --help prints.
#[allow(clippy::doc_markdown)]
#[command(name = "fusebox-operator", version, max_term_width = 100)]
pub struct Config {
    /// This cluster's name in Consul and etcd: unique among all clusters that share them
    #[arg(long, env = "FUSEBOX_CLUSTER", value_parser = cluster_name)]
    pub cluster: String,

    /// Consul's HTTP address
    #[arg(long, env = "CONSUL_HTTP_ADDR", default_value = "http://127.0.0.1:8500", value_name = "URL")]
    pub consul: String,
    /// A file with Consul's ACL token, read anew for each request
    #[arg(long, env = "CONSUL_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub consul_token_file: Option<PathBuf>,
    /// Certificate authorities that Consul is verified by, as PEM, instead of the system's
    #[arg(long, env = "CONSUL_CACERT", value_name = "FILE")]
    pub consul_ca_file: Option<PathBuf>,
    /// After how long without any operator of this cluster Consul takes its entries for failing: between once and twice
    /// this. 10s to 24h, or 0s for never
    #[arg(
        long,
        env = "FUSEBOX_CONSUL_DEAD_MAN_TTL",
        default_value = "1h",
        value_parser = dead_man_ttl,
        value_name = "DURATION"
    )]
    pub consul_dead_man_ttl: Duration,

    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Which raw etcd keys each namespace may write, as JSON: an object of namespaces, each with a list of
    /// prefixes. Without it no namespace may write any
    #[arg(long, env = "FUSEBOX_ALLOWED_KEY_PREFIXES", value_parser = prefixes, value_name = "JSON")]
    pub allowed_key_prefixes: Option<AllowedPrefixes>,

    /// Remove what belongs to no resource any more however much it is: Consul entries and etcd keys of this cluster.
    /// Without it more than 10 and 30 % at once are only told of
    #[arg(long, env = "FUSEBOX_REMOVE_ALL_ORPHANS", action = clap::ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    pub remove_all_orphans: bool,

    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "FUSEBOX_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The Lease by which replicas of one release agree on who leads
    #[arg(long, env = "FUSEBOX_LEASE", default_value = "fusebox-operator", value_name = "NAME")]
    pub lease: String,
    /// The namespace of the Lease; in a pod, the pod's, else the one kubectl is in
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// This process's name in the Lease, epochs and Events; in a pod, the pod's
    #[arg(long, env = "POD_NAME", default_value = "fusebox-operator", value_name = "NAME")]
    pub name: String,
    /// The UID of the pod, if there is one: what this pod's earlier start held is taken over at once
    #[arg(long, env = "POD_UID", value_name = "UID", value_parser = NonEmptyStringValueParser::new())]
    pub pod: Option<String>,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Where etcd is, and as whom to talk to it.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::doc_markdown)]
pub struct EtcdArgs {
    /// etcd's endpoints, separated by commas
    #[arg(
        long,
        env = "FUSEBOX_ETCD",
        default_value = "http://127.0.0.1:2379",
        value_delimiter = ',',
        value_name = "URLS"
    )]
    pub etcd: Vec<String>,
    /// etcd's user
    #[arg(long, env = "FUSEBOX_ETCD_USER", requires = "etcd_password_file", value_name = "NAME")]
    pub etcd_user: Option<String>,
    /// A file with the user's password, read anew at each connect
    #[arg(long, env = "FUSEBOX_ETCD_PASSWORD_FILE", requires = "etcd_user", value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,
    /// Certificate authorities that etcd is verified by, as PEM, instead of the system's
    #[arg(long, env = "FUSEBOX_ETCD_CA_FILE", value_name = "FILE")]
    pub etcd_ca_file: Option<PathBuf>,
    /// A certificate to show to etcd, as PEM, read anew at each connect; where etcd asks for one, its common name is
    /// the user if none is given
    #[arg(long, env = "FUSEBOX_ETCD_CERT_FILE", requires = "etcd_key_file", value_name = "FILE")]
    pub etcd_cert_file: Option<PathBuf>,
    /// The key of that certificate, as PEM
    #[arg(long, env = "FUSEBOX_ETCD_KEY_FILE", requires = "etcd_cert_file", value_name = "FILE")]
    pub etcd_key_file: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
#[allow(clippy::doc_markdown)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, or by module, like fusebox_operator=debug
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Log one JSON object a line, for machines
    #[arg(long, env = "FUSEBOX_LOG_JSON", action = clap::ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    pub log_json: bool,
}

pub fn prefixes(text: &str) -> Result<AllowedPrefixes, String> {
    serde_json::from_str(text).map_err(|error| format!("like {}: {error}", r#"{"shop":["service.user."]}"#))
}

pub fn cluster_name(text: &str) -> Result<String, String> {
    if text == RESERVED_CLUSTER {
        return Err(format!(
            "{RESERVED_CLUSTER:?} is the name under which the claims of all clusters are kept in etcd: choose another"
        ));
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: char| c == '-';
    if text.is_empty()
        || text.len() > MAX_CLUSTER
        || !text.chars().all(good)
        || text.starts_with(ends)
        || text.ends_with(ends)
    {
        return Err(format!(
            "1 to {MAX_CLUSTER} lower-case letters, digits and hyphens, a hyphen neither first nor last"
        ));
    }
    Ok(text.to_owned())
}

/// What Consul allows a session; zero is none.
fn dead_man_ttl(text: &str) -> Result<Duration, String> {
    let ttl = text.parse::<jiff::SignedDuration>().ok().and_then(|ttl| Duration::try_from(ttl).ok());
    ttl.filter(|ttl| ttl.subsec_nanos() == 0 && matches!(ttl.as_secs(), 0 | 10..=86_400))
        .ok_or_else(|| "whole seconds from 10s to 24h, like 90s or 1h, or 0s for no dead man".to_owned())
}

impl Config {
    /// Where Consul is.
    pub fn consul(&self) -> ConsulConfig {
        ConsulConfig {
            address: self.consul.clone(),
            token_file: self.consul_token_file.clone(),
            ca_file: self.consul_ca_file.clone(),
        }
    }

    /// What the pure steps need to know.
    pub fn settings(&self) -> Settings {
        Settings {
            cluster: self.cluster.clone(),
            allowed: self.allowed_key_prefixes.clone().unwrap_or_default(),
            remove_all_orphans: self.remove_all_orphans,
        }
    }
}

impl EtcdArgs {
    /// A URL is shown to people, in logs and in conditions: it must hold no password.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.etcd.iter().any(|url| url.contains('@')),
            "a URL of --etcd has a user in it: take it out; --etcd-user and --etcd-password-file say who"
        );
        Ok(())
    }

    /// As they say.
    pub fn config(&self) -> EtcdConfig {
        let etcd = self.anonymous();
        match (&self.etcd_user, &self.etcd_password_file) {
            (Some(user), Some(file)) => etcd.user(user, file),
            _ => etcd,
        }
    }

    /// Without the user.
    pub fn anonymous(&self) -> EtcdConfig {
        let mut etcd = EtcdConfig::new(&self.etcd);
        if let Some(file) = &self.etcd_ca_file {
            etcd = etcd.ca(file);
        }
        if let (Some(file), Some(key)) = (&self.etcd_cert_file, &self.etcd_key_file) {
            etcd = etcd.certificate(file, key);
        }
        etcd
    }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::keys::{Ident, Keys};

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["fusebox-operator"], args].concat())
    }

    #[test]
    fn the_cluster_alone_is_enough() {
        let config = parse(&["--cluster", "demo"]).unwrap();
        assert_eq!(config.etcd.etcd, ["http://127.0.0.1:2379"]);
        assert!(config.settings().allowed.is_empty());
    }

    #[test]
    fn a_dead_mans_ttl_is_one_that_consul_takes() {
        let parsed = |text: &str| parse(&["--cluster", "demo", "--consul-dead-man-ttl", text]);
        for (text, seconds) in [("1h", 3600), ("10s", 10), ("1h30m", 5400), ("24h", 86_400), ("0s", 0)] {
            assert_eq!(parsed(text).unwrap().consul_dead_man_ttl, Duration::from_secs(seconds), "{text}");
        }
        for text in ["9s", "25h", "1500ms", "-1h", "1", "", "soon"] {
            assert!(dead_man_ttl(text).unwrap_err().contains("10s to 24h"), "{text}");
        }
        assert_eq!(parse(&["--cluster", "demo"]).unwrap().consul_dead_man_ttl, Duration::from_hours(1));
    }

    #[test]
    fn a_cluster_name_that_would_break_a_key_is_refused() {
        for name in ["", "a/b", "A", "-a", "a-", "a b", &"a".repeat(MAX_CLUSTER + 1)] {
            assert!(parse(&["--cluster", name]).is_err(), "{name}");
        }
        assert!(parse(&["--cluster", &"a".repeat(MAX_CLUSTER)]).is_ok());
    }

    #[test]
    fn a_cluster_name_whose_keys_are_those_of_the_claims_is_refused() {
        let of = Ident::new("shop", "user");
        assert_eq!(Keys::new(RESERVED_CLUSTER).raw(&of), Keys::raw_claim("shop/user"));
        let told = parse(&["--cluster", RESERVED_CLUSTER]).unwrap_err().to_string();
        assert!(told.contains("choose another"), "{told}");
        assert!(parse(&["--cluster", "claims-2"]).is_ok());
    }

    #[test]
    fn the_charts_schema_agrees_on_the_name() {
        let schema = include_str!("../../charts/operator/values.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let cluster = &schema["properties"]["cluster"];
        assert_eq!(cluster["not"]["const"], RESERVED_CLUSTER);
        let between = format!("{{0,{}}}", MAX_CLUSTER - 2);
        assert!(cluster["pattern"].as_str().unwrap().contains(&between));
    }

    #[test]
    fn the_chart_sets_only_what_is_read() {
        let chart = include_str!("../../charts/operator/templates/operator.yaml");
        let names = chart.lines().filter_map(|line| line.trim().strip_prefix("- { name: "));
        let set: Vec<&str> =
            names.filter_map(|rest| rest.split_once(", value")).map(|(name, _)| name).collect();
        let read = <Config as clap::CommandFactory>::command();
        let read: Vec<String> =
            read.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect();
        for name in &set {
            assert!(read.iter().any(|read| read == name), "{name}");
        }
        for name in ["FUSEBOX_LEASE", "POD_NAMESPACE", "POD_NAME"] {
            assert!(set.contains(&name), "{name}: else replicas do not find each other");
        }
    }

    #[test]
    fn the_chart_grants_the_lease_and_no_other() {
        let chart = include_str!("../../charts/operator/templates/rbac.yaml");
        let rules = chart.split("resources: [leases]").skip(1).map(|rule| rule.split("---").next().unwrap());
        let rules: Vec<&str> = rules.map(|rule| rule.split("- apiGroups").next().unwrap()).collect();
        assert_eq!(rules.len(), 2);
        assert!(rules[0].contains("verbs: [create]"), "it has no name yet when it is created");
        assert!(rules[1].contains("resourceNames:") && rules[1].contains("verbs: [get, update]"));
    }

    #[test]
    fn allowed_prefixes_are_json() {
        let with = |json: &str| parse(&["--cluster", "demo", "--allowed-key-prefixes", json]);
        assert_eq!(
            with(r#"{"shop":["service.","x"]}"#).unwrap().settings().allowed["shop"],
            ["service.", "x"]
        );
        assert!(with("{}").unwrap().settings().allowed.is_empty());
        assert!(with("[]").unwrap_err().to_string().contains("service.user."));
    }

    #[test]
    fn a_url_with_a_password_in_it_is_refused_and_not_shown() {
        let etcd = parse(&["--cluster", "demo", "--etcd", "http://root:secret@etcd:2379"]).unwrap().etcd;
        let told = etcd.check().unwrap_err().to_string();
        assert!(told.contains("--etcd-user") && !told.contains("secret"), "{told}");
        assert!(parse(&["--cluster", "demo"]).unwrap().etcd.check().is_ok());
    }

    #[test]
    fn a_user_needs_a_password() {
        assert!(parse(&["--cluster", "demo", "--etcd-user", "root"]).is_err());
    }
}
