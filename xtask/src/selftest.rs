//! `cargo xtask cluster selftest`: the cluster survives being killed half-way, and goes without a trace.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fusebox_cluster::process::Exec;
use fusebox_cluster::{Cluster, Options, Road, Snapshot};

use crate::steps::Steps;

const NODE: &str = "fusebox-control-plane";

pub fn run(cluster: &Cluster) -> Result<()> {
    if cluster.status().up {
        bail!("the self-test ends the cluster, and one is up: `cargo xtask cluster down` first");
    }
    let mut steps = Steps::new(cluster.progress());
    let result = all(cluster, &mut steps);
    steps.print();
    result
}

fn all(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    let before = killed(cluster, steps)?;
    steps.run("the next `cluster up` heals", || cluster.up(&Options::default()))?;
    steps.run("pods run on every node", || pods_run(cluster))?;
    steps.run("cluster down", || cluster.down())?;
    steps.run("nothing is left", || nothing_left(cluster, &before))
}

/// A cluster whose `up` was killed, and the machine as it was before.
pub fn killed(cluster: &Cluster, steps: &mut Steps) -> Result<Snapshot> {
    // What an earlier crash left must not count as the machine's own; nor must programs that are installed first.
    if cluster.status().road.is_some() {
        steps.run("taking down what an earlier run left", || cluster.down())?;
    }
    steps.run("programs for the cluster", || cluster.prepare())?;
    let before = Snapshot::take(cluster.places()).context("looking at the machine before the cluster")?;
    steps.run("killing `cluster up` half-way; the next one must heal", || kill_half_way(cluster))?;
    Ok(before)
}

/// Start `up` in a process of its own and, while the node is being set up, kill it, the node and the daemon.
fn kill_half_way(cluster: &Cluster) -> Result<()> {
    let log = cluster.places().logs().join("killed-up.log");
    let file = File::create(&log)?;
    let mut up = Command::new(std::env::current_exe()?)
        .args(["cluster", "up"])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let end = Instant::now() + Duration::from_mins(10);
    let inspect = || {
        let inspect =
            cluster.tool("docker").args(["inspect", "-f", "{{.State.Pid}}", NODE]).deadline(10).output();
        // 0 is a node that has not begun.
        inspect.ok().and_then(|pid| pid.trim().parse::<u32>().ok()).filter(|pid| *pid > 0)
    };
    let node = loop {
        if let Some(pid) = inspect() {
            // Long enough for kubeadm to be at work, short enough that it is not done.
            sleep(Duration::from_secs(6));
            // A daemon that was not ended in order begins with its old nodes, which `up` removes.
            if inspect() == Some(pid) {
                break pid;
            }
        }
        if let Some(status) = up.try_wait()? {
            bail!("`up` ended by itself ({status}); what it said: {}", log.display());
        }
        if Instant::now() > end {
            up.kill()?;
            bail!("`up` made no node in ten minutes; what it said: {}", log.display());
        }
        sleep(Duration::from_millis(200));
    };
    up.kill()?;
    up.wait()?;
    if cluster.status().road == Some(Road::Packages) {
        kill(daemon(&cluster.places().state)?)?;
        kill(node)
    } else {
        // The user's own daemon is not ours to kill.
        cluster.tool("docker").args(["kill", NODE]).output().map(|_| ())
    }
}

fn daemon(state: &Path) -> Result<u32> {
    let pid = fs::read_to_string(state.join("docker.pid")).context("the daemon wrote no pid")?;
    pid.trim().parse().context("the daemon's pid is no number")
}

fn kill(pid: u32) -> Result<()> {
    Exec::new("kill").args(["-KILL", &pid.to_string()]).output().map(|_| ())
}

/// The system's pods are ready on each node.
fn pods_run(cluster: &Cluster) -> Result<()> {
    let wait = ["-n", "kube-system", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"];
    cluster.kubectl(&wait)?;
    let status = cluster.status();
    if !status.up || status.nodes.len() != 2 {
        bail!("two ready nodes are expected, and these are there: {:?}", status.nodes);
    }
    Ok(())
}

/// The machine's processes, network, rules, mounts and cgroups are as they were.
pub fn nothing_left(cluster: &Cluster, before: &Snapshot) -> Result<()> {
    let mut left = cluster.left()?;
    left.extend(before.difference(&Snapshot::take(cluster.places())?));
    if !left.is_empty() {
        bail!("the machine is not as it was before:\n{}", left.join("\n"));
    }
    Ok(())
}
