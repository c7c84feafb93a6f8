//! `fusebox-operator etcd-access` on a real etcd: who it lets do what, again and again, and by hand the same.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

#[path = "../../resilience/tests/common/etcd.rs"]
mod server;

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use etcd_client::{Client, Error, GetOptions, Permission, WatchOptions};
use fusebox::etcd::{EtcdConfig, connect};
use server::{Etcd, eventually};
use tokio::process::Command;

const OPERATOR: &str = "fusebox.demo";
const SHOP: &str = "fusebox.demo.shop";
const ALLOWED: &str = r#"{"shop":["service.user."]}"#;

/// An etcd with a password file `<user>.password` for each, holding `pw-<user>`.
async fn etcd() -> Etcd {
    let etcd = Etcd::start().await;
    for user in ["root", OPERATOR, SHOP] {
        etcd.write(&format!("{user}.password"), &format!("pw-{user}\n"));
    }
    etcd
}

fn command(etcd: &Etcd, more: &[&str]) -> Command {
    let file = |user: &str| etcd.folder().join(format!("{user}.password")).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fusebox-operator"));
    command.args([
        "etcd-access",
        "--cluster",
        "demo",
        "--etcd",
        &etcd.url(),
        "--allowed-key-prefixes",
        ALLOWED,
    ]);
    command.args(["--etcd-user", "root", "--etcd-password-file", &file("root")]);
    command.args([
        "--operator-password-file",
        &file(OPERATOR),
        "--namespace",
        &format!("shop={}", file(SHOP)),
    ]);
    command.args(more).env("RUST_LOG", "info").kill_on_drop(true);
    command
}

/// Runs it to its end; what it said.
async fn run(etcd: &Etcd, more: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(etcd, more).output().await.unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success() && stdout.is_empty(), "{said}");
    assert!(!said.contains("pw-"), "a password was printed: {said}");
    said
}

async fn client(etcd: &Etcd, user: &str) -> Client {
    let config = EtcdConfig::new([etcd.url()]).user(user, etcd.folder().join(format!("{user}.password")));
    Box::pin(connect(&config)).await.unwrap()
}

/// Whether etcd did it, or refused it for want of a right.
fn may<T>(what: &str, done: Result<T, Error>) -> bool {
    match done {
        Ok(_) => true,
        Err(Error::GRpcStatus(status)) if status.message().contains("permission denied") => false,
        // What etcd says to somebody without a name.
        Err(Error::GRpcStatus(status)) if status.message().contains("user name is empty") => false,
        Err(other) => panic!("{what}: {other}"),
    }
}

async fn reads(client: &Client, key: &str) -> bool {
    may(key, client.kv_client().get(key, None).await)
}

async fn writes(client: &Client, key: &str) -> bool {
    may(key, client.kv_client().put(key, "x", None).await)
}

/// What all roles and users are.
async fn picture(etcd: &Etcd) -> BTreeSet<String> {
    let mut client = client(etcd, "root").await;
    let mut all = BTreeSet::new();
    for role in client.role_list().await.unwrap().roles() {
        for p in client.role_get(role.as_str()).await.unwrap().permissions() {
            all.insert(format!("{role} {} {:?} {:?}", p.get_type(), p.key_str(), p.range_end_str()));
        }
    }
    for user in client.user_list().await.unwrap().users() {
        all.insert(format!("{user} is {:?}", client.user_get(user.as_str()).await.unwrap().roles()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_may_do_what_it_needs_and_nothing_else() {
    let etcd = etcd().await;
    let said = run(&etcd, &[]).await;
    assert!(said.contains("authentication is off"), "{said}");
    let said = run(&etcd, &["--enable-auth"]).await;
    assert!(said.contains("authentication is on"), "{said}");

    let shop = client(&etcd, SHOP).await;
    for kind in ["policy", "config", "fleet"] {
        let key = format!("/fusebox/v1/demo/{kind}/shop/user");
        assert!(reads(&shop, &key).await && !writes(&shop, &key).await, "{key}");
    }
    assert!(reads(&shop, "service.user.timeout").await && !writes(&shop, "service.user.timeout").await);
    let report = "/fusebox/v1/demo/reports/shop/user/uid";
    assert!(reads(&shop, report).await && writes(&shop, report).await);
    for key in [
        "/fusebox/v1/demo/policy/shop-2/user",
        "/fusebox/v1/demo/policy/other/user",
        "/fusebox/v1/demo/reports/other/user/uid",
        "/fusebox/v1/demo/raw/shop/user",
        "/fusebox/v1/demo/epoch",
        "/fusebox/v1/claims/raw/service.user.timeout",
        "/fusebox/v1/other/policy/shop/user",
        "service.other",
        "x",
    ] {
        assert!(!reads(&shop, key).await && !writes(&shop, key).await, "{key}");
    }
    let policies = "/fusebox/v1/demo/policy/shop/";
    for range in [GetOptions::new().with_all_keys(), GetOptions::new().with_from_key()] {
        assert!(!may("a range", shop.kv_client().get(policies, Some(range)).await));
    }
    let to_the_end = Some(WatchOptions::new().with_from_key());
    let mut watch = shop.watch_client().watch(policies, to_the_end).await.unwrap();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.canceled() && first.cancel_reason().contains("permission denied"), "{first:?}");
    assert!(!may("users", shop.auth_client().user_list().await));

    let operator = client(&etcd, OPERATOR).await;
    for key in [
        "/fusebox/v1/demo/policy/other/user",
        "/fusebox/v1/demo/epoch",
        "/fusebox/v1/claims/raw/service.user.timeout",
        "service.user.timeout",
    ] {
        assert!(reads(&operator, key).await && writes(&operator, key).await, "{key}");
    }
    for key in [
        "/fusebox/v1/other/epoch",
        "/fusebox/v1/claims/raw/x",
        "/fusebox/v1/demo-2/epoch",
        "service.other",
        "x",
    ] {
        assert!(!reads(&operator, key).await && !writes(&operator, key).await, "{key}");
    }
    assert!(!may("users", operator.auth_client().user_list().await));

    let nobody = etcd.client().await;
    assert!(!reads(&nobody, policies).await && !writes(&nobody, "x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_changes_nothing_twice_and_takes_away_what_is_too_much() {
    let etcd = etcd().await;
    run(&etcd, &["--enable-auth"]).await;
    let made = picture(&etcd).await;
    assert_eq!(run(&etcd, &["--enable-auth"]).await, "", "nothing to do, nothing to say");

    let mut root = client(&etcd, "root").await;
    root.role_grant_permission(SHOP, Permission::read_write("/").with_prefix()).await.unwrap();
    root.role_grant_permission(SHOP, Permission::read_write("one")).await.unwrap();
    root.user_grant_role(SHOP, "root").await.unwrap();
    root.role_add("somebody.else").await.unwrap();
    etcd.write(&format!("{SHOP}.password"), "pw-new");
    assert_ne!(picture(&etcd).await, made);
    let said = run(&etcd, &[]).await;
    assert!(said.contains("its password is set") && said.contains("role root is taken away"), "{said}");
    assert_eq!(picture(&etcd).await, made);
    client(&etcd, SHOP).await;
    assert!(root.role_list().await.unwrap().roles().iter().any(|role| role == "somebody.else"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_came_back_empty_is_set_up_again() {
    let mut etcd = etcd().await;
    let more = ["--enable-auth", "--watch", "--listen", "127.0.0.1:0"];
    let mut watching = command(&etcd, &more).spawn().unwrap();
    let locked = async |etcd: &Etcd| {
        let password = etcd.folder().join(format!("{SHOP}.password"));
        let config = EtcdConfig::new([etcd.url()]).user(SHOP, password);
        eventually("it is set up", async || Box::pin(connect(&config)).await.is_ok()).await;
        assert!(!reads(&etcd.client().await, "x").await, "and not open");
    };
    locked(&etcd).await;
    etcd.kill().await;
    etcd.wipe();
    etcd.run_locked().await;
    locked(&etcd).await;
    let pid = watching.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(watching.wait().await.unwrap().success(), "asked to end, it ends well");
}

/// Every `sh` block of the page, in its order, is what a platform engineer pastes to begin with; what is for a bad day
/// is `bash`.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_page_make_the_same() {
    let etcd = etcd().await;
    let page = include_str!("../../docs/etcd.md");
    let blocks: String = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let tools = fusebox_cluster::tools::find("etcd").unwrap().parent().unwrap().display().to_string();
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-ec", &blocks]).current_dir(etcd.folder());
    shell.env("PATH", path).env("ETCDCTL_ENDPOINTS", etcd.url()).stdout(Stdio::null());
    let ended = shell.output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let by_hand = picture(&etcd).await;
    assert_eq!(run(&etcd, &["--enable-auth"]).await, "", "nothing is missing or too much");
    assert_eq!(picture(&etcd).await, by_hand);
}

#[tokio::test]
async fn what_is_wrong_is_said_before_etcd_is_touched() {
    let nothing = Etcd::new().await;
    nothing.write("empty", " \n");
    let empty = nothing.folder().join("empty").display().to_string();
    for (arguments, told) in [
        (vec![], "nobody to make"),
        (vec!["--namespace", "shop"], "like shop=/run/secrets"),
        (vec!["--namespace", "shop=/none"], "the password file /none"),
        (vec!["--namespace", "a/b=/none"], "no name of a namespace"),
        (vec!["--operator-password-file", &empty], "is empty"),
        (vec!["--enable-auth"], "--etcd-user"),
        (
            vec!["--operator-password-file", &empty, "--allowed-key-prefixes", r#"{"shop":["/"]}"#],
            "reaches keys under /fusebox/",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fusebox-operator"));
        let done = command.args(["etcd-access", "--cluster", "demo"]).args(arguments).output().await.unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && said.contains(told), "{told}: {said}");
    }
}
