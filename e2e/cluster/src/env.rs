//! The variables that programs need to find the cluster and its platform.

use crate::{Cluster, Road, etcd, packages, ports};

/// The variable that names the file with the password of etcd's root.
pub const ETCD_PASSWORD_FILE: &str = "ETCD_ROOT_PASSWORD_FILE";

impl Cluster {
    /// What a person or script needs to use it, as names and values.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.vars();
        let http = |port: ports::Port| format!("http://{}", port.address());
        for (name, value) in [
            ("CONSUL_HTTP_ADDR", http(ports::CONSUL)),
            ("ETCDCTL_ENDPOINTS", format!("https://{}", ports::ETCD.address())),
            ("TRAEFIK_WEB", http(ports::TRAEFIK_WEB)),
            ("TRAEFIK_WEBSECURE", format!("https://{}", ports::TRAEFIK_WEBSECURE.address())),
            ("FUSEBOX_OPERATOR", http(ports::OPERATOR)),
        ] {
            env.push((name.to_owned(), value));
        }
        // The password itself is no variable: it would be printed.
        if let Some((ca, password)) = etcd::files(&self.places) {
            env.push(("ETCDCTL_CACERT".to_owned(), ca.display().to_string()));
            env.push(("ETCDCTL_USER".to_owned(), "root".to_owned()));
            env.push((ETCD_PASSWORD_FILE.to_owned(), password.display().to_string()));
        }
        env
    }

    /// What the programs themselves need.
    pub(crate) fn vars(&self) -> Vec<(String, String)> {
        let state = |name: &str| self.places.state.join(name).display().to_string();
        let mut path = vec![self.places.bin()];
        let mut vars = vec![
            ("KUBECONFIG".to_owned(), state("kubeconfig")),
            ("KUBECACHEDIR".to_owned(), state("kubecache")),
            ("HELM_CACHE_HOME".to_owned(), state("helm")),
        ];
        if Road::taken(&self.places) == Some(Road::Packages) {
            path.push(self.places.debian().join("usr/bin"));
            vars.push(("DOCKER_HOST".to_owned(), format!("unix://{}", state("docker.sock"))));
            vars.push(("DOCKER_CONFIG".to_owned(), state("docker-config")));
            vars.push(("KIND_EXPERIMENTAL_DOCKER_NETWORK".to_owned(), packages::BRIDGE.to_owned()));
        }
        let old = std::env::var_os("PATH").unwrap_or_default();
        // Once is enough when a shell that has these variables calls again.
        path.extend(std::env::split_paths(&old).filter(|folder| !folder.starts_with(&self.places.cache)));
        let path = std::env::join_paths(path).map_or(old, |joined| joined);
        vars.push(("PATH".to_owned(), path.to_string_lossy().into_owned()));
        vars
    }
}
