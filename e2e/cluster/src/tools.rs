//! The programs: built from the Go modules pinned in `e2e/tools`, one folder of the cache for each version.

use std::env::consts;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{Exec, which};
use crate::{Places, Progress, places};

/// A module folder of `e2e/tools`.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The folder's name.
    pub name: &'static str,
    /// The module whose version is the tool's.
    module: &'static str,
    /// Programs and their packages.
    programs: &'static [(&'static str, &'static str)],
}

/// The cluster's programs and `kubectl`.
pub const KUBERNETES: Tool = Tool {
    name: "kubernetes",
    module: "k8s.io/kubernetes",
    programs: &[
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kubeadm", "k8s.io/kubernetes/cmd/kubeadm"),
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ],
};
/// `kubectl` alone, for the road that has a stock node image.
pub const KUBECTL: Tool = Tool { programs: &[("kubectl", "k8s.io/kubernetes/cmd/kubectl")], ..KUBERNETES };
/// The API server alone, for tests that run it without a cluster.
pub const APISERVER: Tool =
    Tool { programs: &[("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")], ..KUBERNETES };
/// kind.
pub const KIND: Tool =
    Tool { name: "kind", module: "sigs.k8s.io/kind", programs: &[("kind", "sigs.k8s.io/kind")] };
/// etcd: the cluster's own and the platform's.
pub const ETCD: Tool = Tool {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
};
/// etcdctl, a module of its own: its client clashes with newer ones.
pub const ETCDCTL: Tool = Tool {
    name: "etcdctl",
    module: "go.etcd.io/etcd/etcdctl/v3",
    programs: &[("etcdctl", "go.etcd.io/etcd/etcdctl/v3")],
};
/// `CoreDNS`.
pub const COREDNS: Tool = Tool {
    name: "coredns",
    module: "github.com/coredns/coredns",
    programs: &[("coredns", "github.com/coredns/coredns")],
};
/// Helm.
pub const HELM: Tool =
    Tool { name: "helm", module: "helm.sh/helm/v4", programs: &[("helm", "helm.sh/helm/v4/cmd/helm")] };
/// Consul, its UI inside.
pub const CONSUL: Tool = Tool {
    name: "consul",
    module: "github.com/hashicorp/consul",
    programs: &[("consul", "github.com/hashicorp/consul")],
};
/// Traefik's module, only downloaded: the custom resource definitions that its users install are in it.
pub const TRAEFIK_CRDS: Tool =
    Tool { name: "traefik-crds", module: "github.com/traefik/traefik/v3", programs: &[] };

/// The systems a program can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This machine.
    Host,
    /// The nodes, which are Linux everywhere.
    Nodes,
}

impl Tool {
    /// The version that its `go.mod` requires, with the leading `v`.
    pub fn version(&self, places: &Places) -> Result<String> {
        let text = self.go_mod(places)?;
        let require = text.lines().map(|line| line.trim().trim_start_matches("require ")).find_map(|line| {
            line.strip_prefix(self.module)?.strip_prefix(' ')?.split_whitespace().next().map(str::to_owned)
        });
        require.with_context(|| format!("e2e/tools/{}/go.mod does not require {}", self.name, self.module))
    }

    /// The programs' folder. Its name has the version and a digest of `go.mod` and `go.sum`, so that any bump builds.
    fn folder(&self, places: &Places, target: Target) -> Result<PathBuf> {
        let sums = fs::read(self.module_folder(places).join("go.sum"))?;
        let digest = fnv(&[self.go_mod(places)?.as_bytes(), &sums]);
        let system = if target == Target::Nodes && consts::OS != "linux" { "-linux" } else { "" };
        Ok(places.cache.join("tools").join(format!(
            "{}-{}-{digest:08x}{system}",
            self.name,
            self.version(places)?
        )))
    }

    fn module_folder(&self, places: &Places) -> PathBuf {
        places.checkout.join("e2e/tools").join(self.name)
    }

    fn go_mod(&self, places: &Places) -> Result<String> {
        let path = self.module_folder(places).join("go.mod");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Build what is missing; the host's programs are then linked in the cache's `bin`.
    pub fn ensure(&self, places: &Places, progress: Progress, target: Target) -> Result<PathBuf> {
        let folder = self.folder(places, target)?;
        let missing: Vec<_> =
            self.programs.iter().copied().filter(|(name, _)| !folder.join(name).is_file()).collect();
        if !missing.is_empty() {
            let version = self.version(places)?;
            let also =
                if missing.len() > 1 { format!(" ({} programs)", missing.len()) } else { String::new() };
            progress.step(&format!("building {} {version}{also}", self.name), || {
                self.build(places, &folder, &missing, &version, target)
            })?;
        }
        if target == Target::Host || consts::OS == "linux" {
            for (name, _) in self.programs {
                link(&places.bin(), name, &folder.join(name))?;
            }
        }
        Ok(folder)
    }

    fn build(
        &self,
        places: &Places,
        folder: &Path,
        missing: &[(&str, &str)],
        version: &str,
        target: Target,
    ) -> Result<()> {
        go_present()?;
        let part = folder.with_extension("part");
        fs::create_dir_all(&part)?;
        fs::create_dir_all(folder)?;
        let mut go = self
            .go(places)
            .args(["build", "-trimpath", "-ldflags", &self.stamp(version)])
            // Static: an image then needs nothing but the program.
            .env("CGO_ENABLED", "0")
            .deadline(40 * 60);
        if target == Target::Nodes {
            go = go.env("GOOS", "linux");
        }
        // One package's file takes the name we give; of several, each takes its package's.
        let out = if let [(name, _)] = missing { part.join(name) } else { part.clone() };
        let mut out = out.into_os_string();
        if missing.len() > 1 {
            out.push("/");
        }
        go.arg("-o")
            .arg(out)
            .args(missing.iter().map(|(_, package)| package))
            .logged(&places.logs().join(format!("build-{}.log", self.name)))?;
        for (name, _) in missing {
            fs::rename(part.join(name), folder.join(name)).with_context(|| format!("go built no {name}"))?;
        }
        fs::remove_dir_all(part)?;
        Ok(())
    }

    fn go(&self, places: &Places) -> Exec {
        Exec::new("go")
            .dir(&self.module_folder(places))
            .env("GOFLAGS", "-mod=readonly -buildvcs=false")
            .env("GOWORK", "off")
    }

    /// Kubernetes' programs tell their version only when it is linked in; kubeadm and Helm refuse v0.0.0.
    fn stamp(&self, version: &str) -> String {
        let mut flags = String::from("-s -w");
        if self.name == KUBERNETES.name {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
                for (name, value) in [
                    ("gitVersion", version),
                    ("gitMajor", major),
                    ("gitMinor", minor),
                    ("gitTreeState", "clean"),
                ] {
                    flags.extend([" -X ", package, ".", name, "=", value]);
                }
            }
        }
        flags
    }
}

/// The path of a program that `ensure` linked.
pub fn path(places: &Places, program: &str) -> PathBuf {
    places.bin().join(program)
}

/// A program for tests that run it without a cluster: `$FUSEBOX_<PROGRAM>_BIN`, else what is in the cache.
pub fn find(program: &str) -> Result<PathBuf> {
    let variable = format!("FUSEBOX_{}_BIN", program.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return Ok(path.into());
    }
    let path = places::cache()?.join("bin").join(program);
    if !path.exists() {
        bail!(
            "this test needs a real {program} and {} does not exist: run `cargo xtask cluster prepare` once, or set \
             {variable} to a {program} program",
            path.display()
        );
    }
    Ok(path)
}

/// Traefik's custom resource definitions as its users get them, from its module in Go's own cache.
pub fn traefik_crds(places: &Places) -> Result<PathBuf> {
    go_present()?;
    let module = format!("{}@{}", TRAEFIK_CRDS.module, TRAEFIK_CRDS.version(places)?);
    let answer = TRAEFIK_CRDS.go(places).args(["mod", "download", "-json", &module]).output()?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer).context("go mod download answered no JSON")?;
    let folder = answer["Dir"].as_str().context("go mod download named no folder")?;
    Ok(Path::new(folder)
        .join("docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"))
}

fn go_present() -> Result<()> {
    if which("go").is_none() {
        bail!(
            "Go is missing: kind, kubectl, Helm and the platform are built from Go modules. Install Go 1.26 or newer, then try again"
        );
    }
    Ok(())
}

/// A link that is replaced whole, so that a program in use is never half there.
pub(crate) fn link(folder: &Path, name: &str, to: &Path) -> Result<()> {
    let path = folder.join(name);
    if fs::read_link(&path).is_ok_and(|now| now == to) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let part = folder.join(format!(".{name}.part"));
    let _ = fs::remove_file(&part);
    symlink(to, &part)?;
    fs::rename(&part, &path).with_context(|| format!("cannot link {}", path.display()))
}

/// FNV-1a folded to 32 bits: a name for a version, not a guard.
pub(crate) fn fnv(parts: &[&[u8]]) -> u32 {
    let hash = parts.iter().flat_map(|part| part.iter()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from((hash >> 32) ^ (hash & 0xffff_ffff)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The module of each tool is one that its `go.mod` requires, in both forms of a `require`.
    #[test]
    fn every_tool_has_a_pinned_version() -> Result<()> {
        let places = Places::find()?;
        for tool in [KUBERNETES, KUBECTL, APISERVER, KIND, ETCD, ETCDCTL, COREDNS, HELM, CONSUL, TRAEFIK_CRDS]
        {
            assert!(tool.version(&places)?.starts_with('v'), "{}", tool.name);
        }
        Ok(())
    }

    /// A `replace` that lags behind its `require` would build one Kubernetes out of two.
    #[test]
    fn staging_modules_have_kubernetes_own_version() -> Result<()> {
        let places = Places::find()?;
        let staging = KUBERNETES.version(&places)?.replacen("v1.", "v0.", 1);
        let text = KUBERNETES.go_mod(&places)?;
        let replaces: Vec<_> =
            text.lines().filter(|line| line.starts_with("\tk8s.io/") && line.contains("=>")).collect();
        assert_eq!(replaces.len(), 31);
        for line in replaces {
            assert!(line.ends_with(&staging), "{line}");
        }
        Ok(())
    }

    #[test]
    fn a_kubernetes_program_is_stamped_with_its_version() {
        let stamp = KUBERNETES.stamp("v1.34.4");
        assert!(stamp.contains("-X k8s.io/component-base/version.gitVersion=v1.34.4"));
        assert!(stamp.contains("-X k8s.io/client-go/pkg/version.gitMinor=34"));
        assert_eq!(HELM.stamp("v4.3.1"), "-s -w");
    }
}
