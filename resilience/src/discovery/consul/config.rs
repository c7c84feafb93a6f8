//! Where Consul is, and who asks.

use std::fmt;
use std::path::PathBuf;

/// Where Consul is, and who asks.
#[derive(Clone, Default)]
pub struct ConsulConfig {
    pub(super) address: String,
    pub(super) token: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) datacenter: Option<String>,
}

/// A setting for Consul that is wrong; the message names it, and never a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConsulConfigError(pub(super) String);

impl ConsulConfig {
    /// A server or agent: `http://` or `https://` with a port; plain HTTP where there is no scheme.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }

    /// By the variables of Consul's own clients: `CONSUL_HTTP_ADDR` (default `127.0.0.1:8500`),
    /// `CONSUL_HTTP_SSL`, `CONSUL_CACERT`, `CONSUL_HTTP_TOKEN_FILE` or `CONSUL_HTTP_TOKEN`.
    pub fn from_env() -> Result<Self, ConsulConfigError> {
        Self::from_variables(|variable| std::env::var(variable).ok())
    }

    /// [`from_env`](Self::from_env) with the variables from elsewhere. An empty one counts as not set.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConsulConfigError> {
        let get = |variable| get(variable).filter(|value| !value.is_empty());
        let address = get("CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
        let tls = match get("CONSUL_HTTP_SSL").as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                let error = format!("CONSUL_HTTP_SSL is wrong, {other:?} is neither true nor false");
                return Err(ConsulConfigError(error));
            }
        };
        let address = if tls && !address.contains("://") { format!("https://{address}") } else { address };
        let mut config = Self::new(address);
        config.token = get("CONSUL_HTTP_TOKEN");
        config.token_file = get("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from);
        config.ca_file = get("CONSUL_CACERT").map(PathBuf::from);
        Ok(config)
    }

    /// A token that stays the same.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// A file with the token, read anew for each question: it may be rotated. It comes before a token.
    #[must_use]
    pub fn token_file(self, file: impl Into<PathBuf>) -> Self {
        Self { token_file: Some(file.into()), ..self }
    }

    /// A PEM file with the authorities to trust instead of the system's.
    #[must_use]
    pub fn ca_file(self, file: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(file.into()), ..self }
    }

    /// Another datacenter than that of the server asked.
    #[must_use]
    pub fn datacenter(self, datacenter: impl Into<String>) -> Self {
        Self { datacenter: Some(datacenter.into()), ..self }
    }
}

/// Without the token.
impl fmt::Debug for ConsulConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulConfig").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<ConsulConfig, ConsulConfigError> {
        ConsulConfig::from_variables(|asked| {
            let found = variables.iter().find(|(variable, _)| *variable == asked);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn consuls_own_variables_are_understood() {
        assert_eq!(read(&[("CONSUL_HTTP_ADDR", "")]).unwrap().address, "127.0.0.1:8500");
        let tls = read(&[("CONSUL_HTTP_ADDR", "consul:8501"), ("CONSUL_HTTP_SSL", "true")]).unwrap();
        assert_eq!(tls.address, "https://consul:8501");
        let error = read(&[("CONSUL_HTTP_SSL", "yes")]).unwrap_err().to_string();
        assert_eq!(error, "CONSUL_HTTP_SSL is wrong, \"yes\" is neither true nor false");
        let secret = format!("{:?}", read(&[("CONSUL_HTTP_TOKEN", "hush")]).unwrap());
        assert!(!secret.contains("hush"), "{secret}");
    }
}
