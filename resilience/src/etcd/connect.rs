//! Connecting to etcd.

use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

/// Where etcd is and as whom to talk to it.
///
/// Files are read at each connect, so a rotated password, certificate or authority is picked up by
/// the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    endpoints: Vec<String>,
    user: Option<(String, PathBuf)>,
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// Why etcd could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A file of the configuration could not be read.
    #[error("cannot read {}: {error}", .file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// etcd, or the way to it, gave an error.
    #[error("etcd: {0}")]
    Etcd(#[from] etcd_client::Error),
    /// No answer in time.
    #[error("etcd: no answer to {what} within {} ms", .after.as_millis())]
    Silent {
        /// What was asked.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// A watch or lease ended from etcd's side.
    #[error("etcd: {0}")]
    Ended(String),
}

/// How long to wait for one answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

impl EtcdConfig {
    /// etcd at these URLs, each `http://` or `https://` with a port, without user; `https` is
    /// verified by the system's authorities.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, user: None, ca: None, certificate: None }
    }

    /// As a user, with the password in a file; white space at its end is ignored.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password_file: impl Into<PathBuf>) -> Self {
        self.user = Some((name.into(), password_file.into()));
        self
    }

    /// Servers are verified by the authorities of this PEM file.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows this certificate, with its key, both PEM files, to servers that ask for one. An etcd with
    /// `--client-cert-auth` takes its common name for the user where none is given.
    #[must_use]
    pub fn certificate(mut self, file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.certificate = Some((file.into(), key_file.into()));
        self
    }

    /// The URLs.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }
}

/// Connects, and logs in where there is a user. Without a user nothing is sent: whether etcd is
/// there shows with the first request.
///
/// It is to one of the endpoints, by chance: balanced over all, each request would go to a dead one as often as to
/// another, and what takes three of them would hardly ever succeed. Who connects again soon finds one that lives.
///
/// A connection that goes silent breaks within six seconds, idle or not: what waits on it fails.
/// Requests have no time limit of their own.
pub async fn connect(config: &EtcdConfig) -> Result<Client, EtcdError> {
    // None at all is etcd-client's to refuse.
    let chosen = fastrand::choice(&config.endpoints);
    let endpoint = chosen.map_or(&[][..], std::slice::from_ref);
    let second = Duration::from_secs(1);
    let mut options = ConnectOptions::new()
        .with_connect_timeout(3 * second)
        .with_keep_alive(3 * second, 3 * second)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((name, file)) = &config.user {
        let password = read(file)?;
        options = options.with_user(name, password.trim_end());
    }
    if config.endpoints.iter().any(|url| url.starts_with("https:")) {
        let mut tls = TlsOptions::new();
        tls = match &config.ca {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
            None => tls.with_enabled_roots(),
        };
        if let Some((file, key)) = &config.certificate {
            tls = tls.identity(Identity::from_pem(read(file)?, read(key)?));
        }
        options = options.with_tls(tls);
    }
    answered("login", async { Ok(Client::connect(endpoint, Some(options)).await?) }).await
}

/// Waits for one answer, at most [`ANSWER`].
pub(crate) async fn answered<T>(
    what: &'static str,
    request: impl Future<Output = Result<T, EtcdError>>,
) -> Result<T, EtcdError> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer,
        Err(_) => Err(EtcdError::Silent { what, after: ANSWER }),
    }
}

/// Small files of the configuration: reading one does not hold up a runtime.
fn read(file: &PathBuf) -> Result<String, EtcdError> {
    std::fs::read_to_string(file).map_err(|error| EtcdError::File { file: file.clone(), error })
}
