//! The one cluster: up, down, and what people and tests do with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Exec;
use crate::tools::{self, Target};
use crate::{
    Image, Node, Places, Progress, Road, Status, disk, etcd, images, kind, lock, packages, ports, road,
};

/// How the cluster should be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Nodes beside the control plane. None takes the cluster that is up as it is, and makes one worker where none is.
    pub workers: Option<u8>,
    /// Whether Consul, etcd and Traefik images are loaded too.
    pub platform: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: None, platform: true }
    }
}

/// A handle on the cluster of this machine's state folder, whether it is up or not.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) places: Places,
    progress: Progress,
}

impl Cluster {
    /// The cluster of this checkout and user; nothing is started.
    pub fn open() -> Result<Self> {
        Ok(Self { places: Places::find()?, progress: Progress::start() })
    }

    /// Its folders.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Its clock and progress lines.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Bring it up, or find that it is. What a crash left is healed first.
    pub fn up(&self, options: &Options) -> Result<()> {
        let _lock = lock::hold(&self.places, self.progress)?;
        let wanted = options.workers.map(kind::config).transpose()?;
        match self.created().filter(|_| self.ready()) {
            Some(config) if wanted.as_ref().is_none_or(|wanted| *wanted == config) => {
                self.progress.say("the cluster is up already");
            }
            other => {
                if other.is_some() {
                    self.progress.say("the cluster that is up has other nodes: it is made anew");
                }
                self.create(&wanted.map_or_else(|| kind::config(1), Ok)?)?;
            }
        }
        if options.platform {
            self.load_locked(&images::platform(&self.places, self.progress)?)?;
        }
        tools::HELM.ensure(&self.places, self.progress, Target::Host)?;
        self.progress.say("up");
        Ok(())
    }

    fn create(&self, config: &str) -> Result<()> {
        disk::room(&self.places.state, disk::CLUSTER, "a cluster")?;
        let (places, progress) = (&self.places, self.progress);
        let road = Road::choose(places, progress)?;
        road.take(places)?;
        for record in ["created", "loaded.json"] {
            let _ = fs::remove_file(places.state.join(record));
        }
        etcd::forget(places);
        let image = match road {
            Road::Stock => {
                for tool in [tools::KIND, tools::KUBECTL] {
                    tool.ensure(places, progress, Target::Host)?;
                }
                road::stock_image()
            }
            Road::Packages => {
                packages::start(places, progress)?;
                packages::node_image(places)?
            }
        };
        let vars = self.vars();
        kind::delete(places, &vars)?;
        if road == Road::Packages {
            packages::wipe(places)?;
        }
        ports::free()?;
        kind::create(places, progress, &vars, &image, config)
            .context("the cluster did not come up; `cargo xtask cluster logs` collects what its nodes say")?;
        fs::write(places.state.join("created"), config).context("cannot write the state folder")
    }

    /// End it, and all that it made on this machine.
    pub fn down(&self) -> Result<()> {
        let _lock = lock::hold(&self.places, self.progress)?;
        self.progress.step("taking the cluster down", || {
            let road = Road::taken(&self.places);
            for record in ["created", "loaded.json", "kind.yaml"] {
                let _ = fs::remove_file(self.places.state.join(record));
            }
            etcd::forget(&self.places);
            match road {
                Some(Road::Stock) => kind::delete(&self.places, &self.vars())?,
                Some(Road::Packages) => packages::stop(&self.places)?,
                None => {}
            }
            let left = self.left_of(road)?;
            if !left.is_empty() {
                bail!("something is left on the machine:\n{}", left.join("\n"));
            }
            let _ = fs::remove_file(self.places.state.join("road"));
            Ok(())
        })?;
        self.progress.say("down, nothing left");
        Ok(())
    }

    /// What of it is on the machine, a line each: all of it while it is up, nothing after `down`.
    pub fn left(&self) -> Result<Vec<String>> {
        self.left_of(Road::taken(&self.places))
    }

    fn left_of(&self, road: Option<Road>) -> Result<Vec<String>> {
        match road {
            Some(Road::Stock) => {
                let docker =
                    Exec::new("docker").args(["ps", "-a", "--format", "container: {{.Names}}", "--filter"]);
                let label = format!("label=io.x-k8s.kind.cluster={}", kind::NAME);
                Ok(docker.arg(label).deadline(30).output()?.lines().map(str::to_owned).collect())
            }
            // Without a record a crash may still have left something of the packages road.
            Some(Road::Packages) => packages::left(&self.places),
            None if self.places.debian().is_dir() => packages::left(&self.places),
            None => Ok(Vec::new()),
        }
    }

    /// Everything that can be built or fetched before a cluster is wanted.
    pub fn prepare(&self) -> Result<()> {
        let _lock = lock::hold(&self.places, self.progress)?;
        match Road::choose(&self.places, self.progress)? {
            Road::Packages => packages::prepare(&self.places, self.progress)?,
            Road::Stock => {
                for tool in [tools::KIND, tools::KUBECTL, tools::APISERVER] {
                    tool.ensure(&self.places, self.progress, Target::Host)?;
                }
            }
        }
        images::platform(&self.places, self.progress)?;
        tools::HELM.ensure(&self.places, self.progress, Target::Host).map(|_| ())
    }

    /// Load images into its nodes; those whose content they hold are skipped.
    pub fn load(&self, images: &[Image]) -> Result<()> {
        let _lock = lock::hold(&self.places, self.progress)?;
        self.load_locked(images)
    }

    fn load_locked(&self, images: &[Image]) -> Result<()> {
        images::load(&self.places, self.progress, &self.vars(), images)
    }

    /// The image `localhost/<package>:dev` of a binary that cargo built.
    pub fn image(&self, package: &str) -> Result<Image> {
        images::ours(&self.places, self.progress, package, &self.target().join(package))
    }

    /// Where cargo puts binaries of the dev profile.
    fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.places.checkout.join("target"), |dir| self.places.checkout.join(dir))
            .join("debug")
    }

    /// Run `kubectl` against it.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.tool("kubectl").args(args).output()
    }

    /// Run `helm` against it.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool("helm").args(args).output()
    }

    /// A program in its environment.
    pub fn tool(&self, program: &str) -> Exec {
        let linked = tools::path(&self.places, program);
        let program = if linked.exists() { linked.into_os_string() } else { program.into() };
        Exec::new(program).envs(&self.vars())
    }

    /// What is there now.
    pub fn status(&self) -> Status {
        let nodes = self.nodes().unwrap_or_default();
        Status {
            up: self.created().is_some() && !nodes.is_empty() && nodes.iter().all(|node| node.ready),
            road: Road::taken(&self.places),
            nodes,
            images: images::loaded(&self.places),
            addresses: ports::ALL
                .iter()
                .map(|port| (port.what.to_owned(), port.address()))
                .collect::<BTreeMap<_, _>>(),
            state: self.places.state.clone(),
        }
    }

    /// The configuration of the cluster that was brought up whole.
    fn created(&self) -> Option<String> {
        fs::read_to_string(self.places.state.join("created")).ok()
    }

    fn ready(&self) -> bool {
        self.nodes().is_ok_and(|nodes| !nodes.is_empty() && nodes.iter().all(|node| node.ready))
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        if !self.places.kubeconfig().is_file() {
            bail!("there is no cluster: `cargo xtask cluster up` makes one");
        }
        let text = self
            .tool("kubectl")
            .args(["get", "nodes", "-o", "json", "--request-timeout=5s"])
            .deadline(10)
            .output()?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let first = |items: &serde_json::Value, key: &str, value: &str, want: &str| {
            let found = items.as_array().into_iter().flatten().find(|item| item[key] == value);
            found.and_then(|item| item[want].as_str()).unwrap_or_default().to_owned()
        };
        let node = |node: &serde_json::Value| Node {
            name: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            ready: first(&node["status"]["conditions"], "type", "Ready", "status") == "True",
            version: node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned(),
            address: first(&node["status"]["addresses"], "type", "InternalIP", "address"),
        };
        Ok(list["items"].as_array().into_iter().flatten().map(node).collect())
    }

    /// Collect what nodes, pods and the daemon say in a folder.
    pub fn logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let kind = self
            .tool("kind")
            .args(["export", "logs", "--name", kind::NAME])
            .arg(folder)
            .deadline(120)
            .output();
        for (name, args) in
            [("events.txt", "get events -A --sort-by=.lastTimestamp"), ("pods.txt", "describe pods -A")]
        {
            let words: Vec<_> = args.split(' ').chain(["--request-timeout=10s"]).collect();
            let text = self.kubectl(&words).unwrap_or_else(|error| format!("{error:#}\n"));
            fs::write(folder.join(name), text)?;
        }
        let copy = |from: &Path| from.file_name().map(|name| fs::copy(from, folder.join(name)));
        copy(&self.places.state.join("dockerd.log"));
        for entry in fs::read_dir(self.places.logs())? {
            copy(&entry?.path());
        }
        kind.map(|_| ())
    }
}
