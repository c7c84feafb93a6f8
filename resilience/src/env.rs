//! Where a process reads who it is and where its policies are.

use std::path::PathBuf;

use fusebox_policy::keys::{Ident, Keys};

use crate::etcd::EtcdConfig;

/// A variable that is missing or malformed. The message names it and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}: {fix}")]
pub struct EnvError {
    variable: &'static str,
    problem: String,
    fix: &'static str,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) service: Ident,
    pub(crate) keys: Keys,
    pub(crate) etcd: EtcdConfig,
    pub(crate) identity: Identity,
    /// Where the last good policy is kept.
    pub(crate) last_good: Option<PathBuf>,
}

/// Which instance this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What people call it: its pod's name, or its address.
    pub(crate) name: String,
    /// The end of its report's key: its pod's UID, or its address.
    pub(crate) key: String,
}

const SERVICE: &str = "FUSEBOX_SERVICE";
const CLUSTER: &str = "FUSEBOX_CLUSTER";
const ETCD: &str = "FUSEBOX_ETCD";
const USER: &str = "FUSEBOX_ETCD_USER";
const PASSWORD_FILE: &str = "FUSEBOX_ETCD_PASSWORD_FILE";
const CA_FILE: &str = "FUSEBOX_ETCD_CA_FILE";
const LAST_GOOD: &str = "FUSEBOX_LAST_GOOD";
const CERT_FILE: &str = "FUSEBOX_ETCD_CERT_FILE";
const KEY_FILE: &str = "FUSEBOX_ETCD_KEY_FILE";

impl Settings {
    /// Reads the variables that `get` knows; an empty one counts as not set.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let get = |variable| get(variable).filter(|value| !value.is_empty());
        let required = |variable, fix| {
            get(variable).ok_or_else(|| EnvError { variable, problem: "is not set".to_owned(), fix })
        };
        let fix = "set it to <namespace>/<name> of the ResilientService, like shop/user";
        let service = required(SERVICE, fix)?.parse().map_err(|problem| EnvError {
            variable: SERVICE,
            problem: format!("is wrong, {problem}"),
            fix,
        })?;
        let fix = "set it to the cluster name that the operator's chart was given, like demo";
        let cluster = required(CLUSTER, fix)?;
        if cluster.contains('/') {
            let problem = format!("is wrong, {cluster:?} has a slash");
            return Err(EnvError { variable: CLUSTER, problem, fix });
        }
        let last_good = last_good(get)?;
        Ok(Self { service, keys: Keys::new(&cluster), etcd: etcd(get)?, identity: identity(get)?, last_good })
    }
}

fn last_good(get: impl Fn(&'static str) -> Option<String>) -> Result<Option<PathBuf>, EnvError> {
    let Some(path) = get(LAST_GOOD).map(PathBuf::from) else { return Ok(None) };
    let folder = path.parent().filter(|folder| folder.is_dir());
    if path.is_dir() || path.file_name().is_none() || folder.is_none() {
        return Err(EnvError {
            variable: LAST_GOOD,
            problem: format!("is wrong, {} is no file in a folder that exists", path.display()),
            fix: "name a file on a volume that outlives the process, like an emptyDir",
        });
    }
    Ok(Some(path))
}

fn etcd(get: impl Fn(&'static str) -> Option<String>) -> Result<EtcdConfig, EnvError> {
    let fix = "set it to the URLs of etcd, separated by commas, like http://etcd:2379";
    let wrong = |variable, problem: String, fix| Err(EnvError { variable, problem, fix });
    let Some(urls) = get(ETCD) else { return wrong(ETCD, "is not set".to_owned(), fix) };
    let endpoints: Vec<_> = urls.split(',').map(|url| url.trim().to_owned()).collect();
    for url in &endpoints {
        // Not quoted: what stands there would be a password.
        if url.contains('@') {
            let fix = "take it out of the URL; FUSEBOX_ETCD_USER and FUSEBOX_ETCD_PASSWORD_FILE say who";
            return wrong(ETCD, "is wrong, a URL has a user in it".to_owned(), fix);
        }
        let scheme = url.parse::<http::Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return wrong(ETCD, format!("is wrong, {url:?} is no http or https URL"), fix);
        }
    }
    let mut config = EtcdConfig::new(endpoints);
    let (password, name) = ("name a file with the user's password", "set it to the user's name in etcd");
    if let Some((user, file)) = both(&get, (USER, name), (PASSWORD_FILE, password))? {
        config = config.user(user, readable(PASSWORD_FILE, file, password)?);
    }
    let (cert, key) = ("name a PEM file with this client's certificate", "name a PEM file with its key");
    let certificate = both(&get, (CERT_FILE, cert), (KEY_FILE, key))?;
    let plain = config.endpoints().iter().any(|url| url.starts_with("http:"));
    if let Some(variable) = [CERT_FILE, CA_FILE].into_iter().find(|&file| plain && get(file).is_some()) {
        return wrong(variable, format!("is set but {ETCD} has an http URL"), "use https URLs, or unset it");
    }
    if let Some((file, key_file)) = certificate {
        config = config.certificate(readable(CERT_FILE, file, cert)?, readable(KEY_FILE, key_file, key)?);
    }
    if let Some(file) = get(CA_FILE) {
        let fix = "name a PEM file with the authority that signed etcd's certificate";
        config = config.ca(readable(CA_FILE, file, fix)?);
    }
    Ok(config)
}

/// Two variables that need each other, each with what it is to be set to.
fn both(
    get: impl Fn(&'static str) -> Option<String>,
    (first, first_fix): (&'static str, &'static str),
    (second, second_fix): (&'static str, &'static str),
) -> Result<Option<(String, String)>, EnvError> {
    let missing =
        |variable, other, fix| Err(EnvError { variable, problem: format!("is not set but {other} is"), fix });
    match (get(first), get(second)) {
        (Some(a), Some(b)) => Ok(Some((a, b))),
        (None, None) => Ok(None),
        (Some(_), None) => missing(second, first, second_fix),
        (None, Some(_)) => missing(first, second, first_fix),
    }
}

fn readable(variable: &'static str, file: String, fix: &'static str) -> Result<PathBuf, EnvError> {
    match std::fs::read(&file) {
        Ok(_) => Ok(file.into()),
        Err(error) => Err(EnvError { variable, problem: format!("is wrong, {file}: {error}"), fix }),
    }
}

fn identity(get: impl Fn(&'static str) -> Option<String>) -> Result<Identity, EnvError> {
    let (name, uid, address) = (get("POD_NAME"), get("POD_UID"), get("POD_IP"));
    let Some(key) = uid.or_else(|| address.clone()) else {
        return Err(EnvError {
            variable: "POD_UID",
            problem: "is not set, nor is POD_IP".to_owned(),
            fix: "set it from the pod's metadata.uid by the downward API; outside of Kubernetes set POD_IP to \
                  the address the service is reached at",
        });
    };
    Ok(Identity { name: name.or(address).unwrap_or_else(|| key.clone()), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Settings, EnvError> {
        let base = [
            (SERVICE, "shop/user"),
            (CLUSTER, "demo"),
            (ETCD, "http://a:2379, http://b:2379"),
            ("POD_NAME", "user-1"),
            ("POD_UID", "uid-1"),
        ];
        Settings::read(|variable| {
            let found = changes.iter().chain(&base).find(|(name, _)| *name == variable);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn reads_who_it_is_and_where_its_policies_are() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.service, Ident::new("shop", "user"));
        assert_eq!(settings.keys, Keys::new("demo"));
        assert_eq!(settings.etcd.endpoints(), ["http://a:2379", "http://b:2379"]);
        assert_eq!(settings.identity, Identity { name: "user-1".into(), key: "uid-1".into() });
        let bare = read(&[("POD_NAME", ""), ("POD_UID", ""), ("POD_IP", "10.0.0.7")]).unwrap();
        assert_eq!(bare.identity, Identity { name: "10.0.0.7".into(), key: "10.0.0.7".into() });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_fix() {
        for (changes, message) in [
            (&[(SERVICE, "")][..], "FUSEBOX_SERVICE is not set: set it to <namespace>/<name>"),
            (&[(SERVICE, "user")], "FUSEBOX_SERVICE is wrong, \"user\" is not <namespace>/<name>: set it"),
            (&[(CLUSTER, "")], "FUSEBOX_CLUSTER is not set: set it to the cluster name"),
            (&[(CLUSTER, "a/b")], "FUSEBOX_CLUSTER is wrong, \"a/b\" has a slash"),
            (&[(ETCD, "")], "FUSEBOX_ETCD is not set: set it to the URLs"),
            (&[(ETCD, "etcd:2379")], "FUSEBOX_ETCD is wrong, \"etcd:2379\" is no http or https URL"),
            (
                &[(ETCD, "http://root:secret@etcd:2379")],
                "FUSEBOX_ETCD is wrong, a URL has a user in it: take it out",
            ),
            (&[(USER, "u")], "FUSEBOX_ETCD_PASSWORD_FILE is not set but FUSEBOX_ETCD_USER is"),
            (&[(PASSWORD_FILE, "p")], "FUSEBOX_ETCD_USER is not set but FUSEBOX_ETCD_PASSWORD_FILE is"),
            (
                &[(USER, "u"), (PASSWORD_FILE, "/none")],
                "FUSEBOX_ETCD_PASSWORD_FILE is wrong, /none: No such file",
            ),
            (&[(CA_FILE, "/none")], "FUSEBOX_ETCD_CA_FILE is set but FUSEBOX_ETCD has an http URL"),
            (
                &[(LAST_GOOD, "/none/policy")],
                "FUSEBOX_LAST_GOOD is wrong, /none/policy is no file in a folder",
            ),
            (&[(LAST_GOOD, "/")], "FUSEBOX_LAST_GOOD is wrong, / is no file in a folder that exists"),
            (&[(CERT_FILE, "c")], "FUSEBOX_ETCD_KEY_FILE is not set but FUSEBOX_ETCD_CERT_FILE is"),
            (&[(KEY_FILE, "k")], "FUSEBOX_ETCD_CERT_FILE is not set but FUSEBOX_ETCD_KEY_FILE is"),
            (
                &[(CERT_FILE, "c"), (KEY_FILE, "k")],
                "FUSEBOX_ETCD_CERT_FILE is set but FUSEBOX_ETCD has an http URL",
            ),
            (&[("POD_UID", "")], "POD_UID is not set, nor is POD_IP: set it from the pod's metadata.uid"),
        ] {
            let error = read(changes).expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
