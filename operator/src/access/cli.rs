//! What a person says to `etcd-access`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fusebox_policy::access::{AllowedPrefixes, Role};
use fusebox_policy::keys::Keys;

use crate::config::{EtcdArgs, LogArgs, cluster_name, prefixes};

/// Makes the users and roles that Fusebox needs in etcd, each with the least that is enough: one for the
/// operator, one for the services of each namespace. Run again, it changes only what differs.
///
/// It logs in as --etcd-user, which must have the role root. Where authentication is still off it needs no
/// login, and with --enable-auth it turns it on, that user and password being root's from then on.
///
/// Names: fusebox.<cluster> for the operator, fusebox.<cluster>.<namespace> for a namespace, user and role alike.
/// A namespace that is no longer given keeps both: `etcdctl user delete` and `etcdctl role delete` end them.
#[derive(Clone, Debug, Parser)]
// The doc comments are what --help prints.
#[allow(clippy::doc_markdown)]
#[command(
    name = "fusebox-operator etcd-access",
    bin_name = "fusebox-operator etcd-access",
    max_term_width = 100
)]
pub struct AccessConfig {
    /// This cluster's name, as the operator is given it
    #[arg(long, env = "FUSEBOX_CLUSTER", value_parser = cluster_name)]
    pub cluster: String,
    /// A file with the password of the operator's user. Without it the operator is not touched
    #[arg(long, value_name = "FILE")]
    pub operator_password_file: Option<PathBuf>,
    /// A namespace, and a file with the password of its user; may be given several times
    #[arg(long = "namespace", value_parser = namespace, value_name = "NAME=FILE")]
    pub namespaces: Vec<(String, PathBuf)>,
    /// Which raw etcd keys each namespace may declare, as the operator is given it
    #[arg(long, env = "FUSEBOX_ALLOWED_KEY_PREFIXES", value_parser = prefixes, value_name = "JSON")]
    pub allowed_key_prefixes: Option<AllowedPrefixes>,
    /// Turn authentication on, if it is off
    #[arg(long, requires = "etcd_user")]
    pub enable_auth: bool,

    /// Go on looking, every five seconds: an etcd that came back empty is set up again, and a password whose file
    /// changed is set
    #[arg(long)]
    pub watch: bool,
    /// Where /healthz and /readyz are served with --watch; ready means that all was made once
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// A role and the password of its user.
pub struct Wanted {
    /// What it may do.
    pub role: Role,
    /// Never printed: this type has no Debug.
    pub password: String,
}

impl AccessConfig {
    /// Everybody that is to be there, with the passwords as their files are now.
    pub fn wanted(&self) -> anyhow::Result<Vec<Wanted>> {
        let (keys, none) = (Keys::new(&self.cluster), AllowedPrefixes::new());
        let allowed = self.allowed_key_prefixes.as_ref().unwrap_or(&none);
        let mut all = Vec::new();
        if let Some(file) = &self.operator_password_file {
            all.push(Wanted { role: keys.operator_role(allowed)?, password: password(file)? });
        }
        for (namespace, file) in &self.namespaces {
            all.push(Wanted { role: keys.namespace_role(namespace, allowed)?, password: password(file)? });
        }
        ensure!(!all.is_empty(), "nobody to make: give --operator-password-file, --namespace, or both");
        Ok(all)
    }

    /// The user that logs in, and its password.
    pub fn root(&self) -> anyhow::Result<Option<(String, String)>> {
        let (Some(user), Some(file)) = (&self.etcd.etcd_user, &self.etcd.etcd_password_file) else {
            return Ok(None);
        };
        Ok(Some((user.clone(), password(file)?)))
    }
}

fn password(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("the password file {}", file.display()))?;
    let password = text.trim_end();
    ensure!(!password.is_empty(), "the password file {} is empty", file.display());
    Ok(password.to_owned())
}

fn namespace(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("like shop=/run/secrets/shop/password".to_owned()),
    }
}
