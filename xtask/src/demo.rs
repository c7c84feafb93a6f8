//! `cargo xtask demo`: the main job shown step by step on a real cluster, which stays up.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fusebox_cluster::{Cluster, Options, install, ports};

use crate::story::{self, Story};
use crate::{debian, test};

/// A liveness bound, about ten times what is seen: the demo fails rather than hangs.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, clap::Args)]
pub struct Args {}

/// Brings everything up and tells the story.
pub fn run(_args: &Args) -> Result<()> {
    let cluster = Cluster::open()?;
    debian::ensure_protoc(cluster.progress())?;
    debian::ensure("curl", cluster.progress())?;
    debian::ensure("openssl", cluster.progress())?;
    cluster.up(&Options::default())?;
    test::images(&cluster, &[])?;
    install::platform(&cluster)?;
    install::operator(&cluster)?;
    install::shop(&cluster)?;
    let story = Story::new(&cluster);
    store(&cluster, 0)?;
    certificate(&cluster)?;
    applied(&story)?;
    found(&story)?;
    reached(&story)?;
    edited(&story)?;
    saved(&story)?;
    urls(&story);
    Ok(())
}

fn applied(story: &Story) -> Result<()> {
    story.chapter("A ResilientService is applied", "one resource each for the service and for its caller");
    story.kubectl("apply --server-side --force-conflicts -f examples/user.yaml -f examples/caller.yaml")?;
    story.kubectl(
        "-n shop wait --for=condition=Ready --for=condition=Enforced rsvc/user rsvc/caller --timeout=120s",
    )?;
    story.kubectl("-n shop get rsvc -o wide")?;
    Ok(())
}

fn found(story: &Story) -> Result<()> {
    story
        .chapter("Found by name", "every ready instance is in Consul under the name that the resource gives");
    let url = format!("http://{}/v1/health/service/user.service?passing", ports::CONSUL.address());
    let text = story::quiet_curl(&[&url])?;
    let entries: serde_json::Value = serde_json::from_str(&text).context("Consul answered no JSON")?;
    let mut shown = String::new();
    for entry in entries.as_array().into_iter().flatten() {
        let (service, node) = (&entry["Service"], &entry["Node"]["Node"]);
        writeln!(
            shown,
            "{} at {}:{} tags {} on {node}",
            service["Service"], service["Address"], service["Port"], service["Tags"]
        )?;
    }
    story::show(&format!("curl '{url}'   # name, address, tags"), &shown);
    Ok(())
}

fn reached(story: &Story) -> Result<()> {
    story.chapter("Reached through Traefik", "load-balanced over the instances, in plaintext and over TLS");
    eventually("Traefik routes the host", || {
        ensure!(greeting()?.contains("Hello, Ada"), "not yet");
        Ok(())
    })?;
    for _ in 0..3 {
        story::curl(&["-H", "Host: api.example.com", &web("/users/Ada")])?;
    }
    let tls = format!("api.example.com:443:{}", ports::TRAEFIK_WEBSECURE.address());
    story::curl(&["-k", "--connect-to", &tls, "https://api.example.com/users/Ada"])?;
    story::curl(&["-H", "Host: hello.example.com", &web("/hello/Ada")])?;
    Ok(())
}

fn edited(story: &Story) -> Result<()> {
    story.chapter(
        "A policy edited while calls run",
        "the user store now takes a second; the declared timeout is 1500ms, then 300ms: in force without a restart",
    );
    store(story.cluster(), 1000)?;
    story.kubectl("-n shop get pods -l app.kubernetes.io/name=user-service")?;
    story::curl(&["-i", "-H", "Host: api.example.com", &web("/users/Ada")])?;
    let edit = r#"{"spec":{"inbound":{"timeout":"300ms"}}}"#;
    let args = ["-n", "shop", "patch", "rsvc", "user", "--type=merge", "-p", edit];
    story.kubectl_args(&args)?;
    let accepted = Instant::now();
    story.kubectl("-n shop wait --for=condition=Enforced rsvc/user --timeout=120s")?;
    let took = Instant::now().duration_since(accepted).as_millis();
    story::say(&format!(
        "In force in every instance, reported and told {took} ms after the edit was accepted."
    ));
    story::curl(&["-i", "-H", "Host: api.example.com", &web("/users/Ada")])?;
    story.kubectl("-n shop get pods -l app.kubernetes.io/name=user-service")?;
    story.kubectl("apply --server-side --force-conflicts -f examples/user.yaml")?;
    Ok(())
}

fn saved(story: &Story) -> Result<()> {
    story.chapter(
        "A breaker saves a caller",
        "the store takes three seconds: the caller gives up after its one, then its breaker opens and it waits no more",
    );
    store(story.cluster(), 3000)?;
    story::curl(&["-w", "   (%{time_total} s)", "-H", "Host: hello.example.com", &web("/hello/Ada")])?;
    story::say("...and so do the next calls, until a quarter of at least twenty have failed:");
    eventually("the breaker opens", || {
        let calls: Vec<_> = (0..8).map(|_| std::thread::spawn(call_caller)).collect();
        let answers: Vec<String> = calls.into_iter().filter_map(|call| call.join().ok()).collect();
        ensure!(answers.iter().any(|answer| answer.contains("\"open\"")), "{answers:?}");
        Ok(())
    })?;
    story::curl(&["-w", "   (%{time_total} s)", "-H", "Host: hello.example.com", &web("/hello/Ada")])?;
    status_says(story.cluster(), "get_user")?;
    story.kubectl("-n shop get rsvc caller")?;
    story.kubectl_args(&["-n", "shop", "get", "rsvc", "caller", "-o", "jsonpath={.status.openBreakers}"])?;
    story::say("The store is quick again:");
    store(story.cluster(), 0)?;
    eventually("the breaker closes", || {
        ensure!(call_caller().contains("Hello, Ada"), "still the fallback");
        Ok(())
    })?;
    story::curl(&["-w", "   (%{time_total} s)", "-H", "Host: hello.example.com", &web("/hello/Ada")])?;
    status_says(story.cluster(), "closed")?;
    story.kubectl("-n shop get rsvc")?;
    Ok(())
}

/// Waits until the caller's column BREAKER says so.
fn status_says(cluster: &Cluster, word: &str) -> Result<()> {
    eventually(&format!("the status says {word}"), || {
        let column = "jsonpath={.status.summary.breaker}";
        let breaker = cluster.kubectl(&["-n", "shop", "get", "rsvc", "caller", "-o", column])?;
        ensure!(breaker.contains(word), "{breaker}");
        Ok(())
    })
}

fn urls(story: &Story) {
    story.chapter("It stays up", "try it; `cargo xtask cluster down` ends it and leaves nothing behind");
    let lines = [
        ("the service, HTTP", format!("curl -H 'Host: api.example.com' {}", web("/users/Ada"))),
        ("its caller", format!("curl -H 'Host: hello.example.com' {}", web("/hello/Ada"))),
        ("Consul's page", format!("http://{}/ui", ports::CONSUL.address())),
        ("the operator's metrics", format!("http://{}/metrics", ports::OPERATOR.address())),
        ("kubectl, etcdctl, helm", "eval \"$(cargo xtask cluster env)\"".to_owned()),
    ];
    for (what, line) in lines {
        println!("  {what:<24} {line}");
    }
}

fn web(path: &str) -> String {
    format!("http://{}{path}", ports::TRAEFIK_WEB.address())
}

fn greeting() -> Result<String> {
    story::quiet_curl(&["-H", "Host: api.example.com", &web("/users/Ada")])
}

fn call_caller() -> String {
    let args = ["-s", "-m", "20", "-H", "Host: hello.example.com"];
    let curl = fusebox_cluster::process::Exec::new("curl").args(args).arg(web("/hello/Ada")).output();
    curl.unwrap_or_default()
}

/// Makes the user store slow, through the API server's proxy: its admin port is not reachable from outside.
fn store(cluster: &Cluster, delay_ms: u32) -> Result<()> {
    let file = cluster.places().state.join("behaviour.json");
    fs::write(&file, format!("{{\"delayMs\":{delay_ms},\"failPercent\":0}}"))?;
    let file = file.display().to_string();
    let path = "/api/v1/namespaces/shop/services/user-store:admin/proxy/admin/behaviour";
    eventually("the store's admin endpoint answers", || {
        cluster.kubectl(&["replace", "--raw", path, "-f", &file]).map(|_| ())
    })
}

/// A self-signed certificate under the name that the example's routes give.
fn certificate(cluster: &Cluster) -> Result<()> {
    let (key, cert) = (cluster.places().state.join("api.key"), cluster.places().state.join("api.crt"));
    let (key, cert) = (key.display().to_string(), cert.display().to_string());
    let subject = [
        "-subj",
        "/CN=api.example.com",
        "-addext",
        "subjectAltName=DNS:api.example.com,DNS:grpc.example.com",
    ];
    fusebox_cluster::process::Exec::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
        ])
        .args(["-keyout", &key, "-out", &cert])
        .args(subject)
        .output()?;
    let (key, cert) = (format!("--key={key}"), format!("--cert={cert}"));
    let dry =
        ["-n", "shop", "create", "secret", "tls", "api-cert", &key, &cert, "--dry-run=client", "-o", "yaml"];
    let secret = cluster.places().state.join("api-cert.yaml");
    fs::write(&secret, cluster.kubectl(&dry)?)?;
    cluster.kubectl(&["apply", "-f", &secret.display().to_string()]).map(|_| ())
}

fn eventually(what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => bail!("never came true: {what}; last seen: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}
