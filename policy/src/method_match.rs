//! Which requests the policy of a method holds for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which requests a method's policy holds for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum MethodMatch {
    /// A gRPC method, or every method of a service.
    Grpc {
        /// The full name of the service, like `user.v1.UserService`.
        service: String,
        /// The name of the method, like `GetUser`. None: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<String>,
    },
    /// HTTP requests under a path.
    #[serde(rename_all = "camelCase")]
    Http {
        /// The HTTP method, in capitals. None: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<String>,
        /// Whole path elements: `/users` matches `/users` and `/users/ada`, not `/usersx`.
        path_prefix: String,
    },
}

impl MethodMatch {
    /// One gRPC method: `MethodMatch::grpc("user.v1.UserService", "GetUser")`.
    pub fn grpc(service: impl Into<String>, method: impl Into<String>) -> Self {
        Self::Grpc { service: service.into(), method: Some(method.into()) }
    }

    /// Every method of a gRPC service.
    pub fn grpc_service(service: impl Into<String>) -> Self {
        Self::Grpc { service: service.into(), method: None }
    }

    /// HTTP requests with one method, in capitals, under a path: `MethodMatch::http("GET", "/users")`.
    pub fn http(method: impl Into<String>, path_prefix: impl Into<String>) -> Self {
        Self::Http { method: Some(method.into()), path_prefix: path_prefix.into() }
    }

    /// HTTP requests with any method under a path.
    pub fn http_path(path_prefix: impl Into<String>) -> Self {
        Self::Http { method: None, path_prefix: path_prefix.into() }
    }

    /// The same requests, in the one way of writing them: `/users/` means what `/users` means.
    pub(crate) fn normal(self) -> Self {
        match self {
            Self::Http { method, path_prefix } if path_prefix.len() > 1 && path_prefix.ends_with('/') => {
                let prefix = path_prefix.trim_end_matches('/');
                let prefix = if prefix.is_empty() { "/" } else { prefix };
                Self::Http { method, path_prefix: prefix.to_owned() }
            }
            other => other,
        }
    }

    /// Whether a request with this HTTP method and path is meant.
    pub fn matches(&self, http_method: &str, path: &str) -> bool {
        match self {
            Self::Grpc { service, method } => {
                // No name of a service has a slash.
                let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service.as_str()));
                let named = rest.and_then(|rest| rest.strip_prefix('/'));
                http_method == "POST"
                    && named.is_some_and(|named| method.as_ref().is_none_or(|method| named == method))
            }
            Self::Http { method, path_prefix } => {
                let rest = path.strip_prefix(path_prefix.trim_end_matches('/'));
                method.as_ref().is_none_or(|method| method == http_method)
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }

    /// Whether every request that `other` means is meant by this too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Grpc { service, method }, Self::Grpc { service: other_service, method: other_method }) => {
                service == other_service && (method.is_none() || method == other_method)
            }
            // A gRPC request is a POST of /<service>/<method>.
            (Self::Http { .. }, Self::Grpc { service, method }) => {
                let method = method.as_ref().map(|method| format!("/{method}")).unwrap_or_default();
                self.matches("POST", &format!("/{service}{method}"))
            }
            (Self::Http { method, .. }, Self::Http { method: other_method, path_prefix }) => {
                (method.is_none() || method == other_method)
                    && self.matches(method.as_deref().unwrap_or_default(), path_prefix.trim_end_matches('/'))
            }
            (Self::Grpc { .. }, Self::Http { .. }) => false,
        }
    }
}

/// `user.v1.UserService/GetUser`, `GET /users`; what is not said is `*`.
impl fmt::Display for MethodMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc { service, method } => write!(f, "{service}/{}", method.as_deref().unwrap_or("*")),
            Self::Http { method, path_prefix } => {
                write!(f, "{} {path_prefix}", method.as_deref().unwrap_or("*"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(service: &str, method: Option<&str>) -> MethodMatch {
        MethodMatch::Grpc { service: service.into(), method: method.map(Into::into) }
    }

    fn http(method: Option<&str>, path_prefix: &str) -> MethodMatch {
        MethodMatch::Http { method: method.map(Into::into), path_prefix: path_prefix.into() }
    }

    #[test]
    fn a_method_matches_by_whole_path_elements() {
        let users = MethodMatch::Http { method: Some("GET".into()), path_prefix: "/users".into() };
        assert!(users.matches("GET", "/users") && users.matches("GET", "/users/ada"));
        assert!(!users.matches("GET", "/usersx") && !users.matches("PUT", "/users"));
        let root = MethodMatch::Http { method: None, path_prefix: "/".into() };
        assert!(root.matches("GET", "/") && root.matches("PUT", "/anything"));
    }

    #[test]
    fn a_grpc_method_matches_its_path() {
        let one = MethodMatch::Grpc { service: "user.v1.UserService".into(), method: Some("GetUser".into()) };
        assert!(one.matches("POST", "/user.v1.UserService/GetUser"));
        assert!(!one.matches("POST", "/user.v1.UserService/PutUser") && !one.matches("POST", "/GetUser"));
        let all = MethodMatch::Grpc { service: "user.v1.UserService".into(), method: None };
        assert!(
            all.matches("POST", "/user.v1.UserService/PutUser") && !all.matches("POST", "/other/PutUser")
        );
    }

    #[test]
    fn a_match_covers_another_if_it_means_all_of_its_requests() {
        let (all, get) = (grpc("a.S", None), grpc("a.S", Some("Get")));
        for (wide, narrow) in [
            (all.clone(), get.clone()),
            (http(None, "/"), http(Some("GET"), "/users")),
            (http(None, "/users"), http(Some("GET"), "/users")),
            (http(Some("GET"), "/users"), http(Some("GET"), "/users/ada")),
            (http(None, "/"), all.clone()),
            (http(Some("POST"), "/a.S"), all.clone()),
            (http(None, "/a.S/Get"), get.clone()),
        ] {
            assert!(wide.covers(&narrow) && !narrow.covers(&wide), "{wide} covers {narrow}");
        }
        for (one, other) in [
            (get.clone(), grpc("a.S", Some("Put"))),
            (all.clone(), grpc("a.T", None)),
            (http(Some("GET"), "/users"), http(Some("PUT"), "/users")),
            (http(Some("GET"), "/users"), http(None, "/users/ada")),
            (http(None, "/users"), http(None, "/usersx")),
            (http(Some("GET"), "/"), all),
            (http(None, "/a.S/Get"), grpc("a.S", None)),
        ] {
            assert!(!one.covers(&other) || one == other, "{one} does not cover {other}");
        }
        for same in [http(None, "/"), http(Some("GET"), "/users/"), get] {
            assert!(same.covers(&same), "{same}");
        }
        assert!(http(None, "/users/").covers(&http(None, "/users")));
    }
}
