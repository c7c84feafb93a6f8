//! Whoever has a namespace's credential for etcd, taken from its Secret, can do what its services do, and no more.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, Error, GetOptions, WatchOptions};
use fusebox_cluster::etcd::user_secret;
use fusebox_cluster::install::{OPERATOR_NAMESPACE, PLATFORM_NAMESPACE, SHOP_NAMESPACE};
use fusebox_e2e::{World, etcd, shop};
use fusebox_policy::keys::{Ident, Keys};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client with the credential that a namespace holds.
async fn credential_of(world: &World, who: &str, namespace: &str) -> Result<Client> {
    let secrets = Api::<Secret>::namespaced(world.client.clone(), namespace);
    let data = secrets.get(&user_secret(who)).await?.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = &data.get(key).with_context(|| format!("no {key} in the Secret"))?.0;
        Ok::<_, anyhow::Error>(String::from_utf8(bytes.clone())?)
    };
    etcd::client_as(world, Some((&text("username")?, &text("password")?))).await
}

/// Whether etcd did it, or refused it with these words.
fn allowed<T>(what: &str, refusal: &str, done: Result<T, Error>) -> Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(Error::GRpcStatus(status)) if status.message().contains(refusal) => Ok(false),
        Err(other) => Err(other).with_context(|| what.to_owned()),
    }
}

const DENIED: &str = "permission denied";

async fn reads(client: &Client, key: &str) -> Result<bool> {
    allowed(key, DENIED, client.kv_client().get(key, None).await)
}

async fn writes(client: &Client, key: &str) -> Result<bool> {
    allowed(key, DENIED, client.kv_client().put(key, "x", None).await)
}

#[tokio::test]
async fn j_a_namespaces_credential_is_for_its_own() -> Result<()> {
    let world = shop::opened().await?;
    let client = credential_of(&world, SHOP_NAMESPACE, SHOP_NAMESPACE).await?;
    let (keys, user) = (etcd::keys(), etcd::ident("user"));

    let policy = client.kv_client().get(keys.policy(&user), None).await?;
    assert_eq!(policy.kvs().len(), 1, "its policy");
    for key in [keys.config(&user), keys.fleet(&user), "service.user.timeout".into()] {
        assert!(reads(&client, &key).await? && !writes(&client, &key).await?, "{key}");
    }
    assert!(!writes(&client, &keys.policy(&user)).await?);
    // Of no pod, and of no resource, so that no test counts it.
    let report = keys.report(&etcd::ident("nobody"), "j");
    assert!(writes(&client, &report).await?);
    client.kv_client().delete(report, None).await?;

    let (other, elsewhere) = (Ident::new("shop-2", "user"), Keys::new("other"));
    for key in [
        keys.policy(&other),
        keys.config(&other),
        keys.report(&other, "j"),
        keys.epoch(),
        keys.raw(&user),
        Keys::raw_claim("service.user.timeout"),
        elsewhere.policy(&user),
        elsewhere.report(&user, "j"),
        elsewhere.epoch(),
        "service.other".into(),
    ] {
        assert!(!reads(&client, &key).await? && !writes(&client, &key).await?, "{key}");
    }
    let from = format!("{}policy/{SHOP_NAMESPACE}/", keys.prefix());
    for range in [GetOptions::new().with_all_keys(), GetOptions::new().with_from_key()] {
        let everything = client.kv_client().get(from.as_str(), Some(range)).await;
        assert!(!allowed("everything", DENIED, everything)?);
    }
    let to_the_end = Some(WatchOptions::new().with_from_key());
    let mut watch = client.watch_client().watch(from.as_str(), to_the_end).await?;
    let told = watch.message().await?.context("the watch ended without a word")?;
    assert!(told.canceled() && told.cancel_reason().contains(DENIED), "{told:?}");
    assert!(!allowed("users", DENIED, client.auth_client().user_list().await)?);
    Ok(())
}

#[tokio::test]
async fn j_the_operators_credential_ends_at_its_prefixes() -> Result<()> {
    let world = shop::opened().await?;
    let client = credential_of(&world, "operator", OPERATOR_NAMESPACE).await?;
    let keys = etcd::keys();
    for key in [keys.epoch(), keys.policy(&etcd::ident("user")), Keys::raw_claim("service.user.timeout")] {
        assert!(reads(&client, &key).await?, "{key}");
    }
    let scratch =
        ["service.user.j".to_owned(), Keys::raw_claim("service.user.j"), keys.policy(&Ident::new("j", "j"))];
    for key in scratch {
        assert!(writes(&client, &key).await?, "{key}");
        client.kv_client().delete(key, None).await?;
    }
    for key in [
        Keys::new("other").epoch(),
        Keys::new("demo-2").epoch(),
        Keys::raw_claim("somebody.elses"),
        "somebody.elses".into(),
        "/".into(),
    ] {
        assert!(!reads(&client, &key).await? && !writes(&client, &key).await?, "{key}");
    }
    assert!(!allowed("users", DENIED, client.auth_client().user_list().await)?);
    Ok(())
}

#[tokio::test]
async fn j_nobody_and_plaintext_get_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let nobody = etcd::client_as(&world, None).await?;
    let key = etcd::keys().policy(&etcd::ident("user"));
    let unnamed = "user name is empty";
    assert!(!allowed(&key, unnamed, nobody.kv_client().get(key.as_str(), None).await)?);
    assert!(!allowed(&key, unnamed, nobody.kv_client().put(key.as_str(), "x", None).await)?);
    let wrong = etcd::client_as(&world, Some(("root", "wrong"))).await;
    assert!(wrong.is_err_and(|error| format!("{error:#}").contains("authentication failed")));

    // What a plaintext client sends first gets no answer of etcd's.
    let address = world.address("ETCDCTL_ENDPOINTS").trim_start_matches("https://");
    let mut plain = tokio::net::TcpStream::connect(address).await?;
    plain.write_all(b"GET /version HTTP/1.1\r\nHost: etcd\r\n\r\n").await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), plain.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8_lossy(&answer);
    assert!(read.is_err() || !answer.contains("etcdserver"), "{answer}");
    assert!(!answer.contains("200 OK"), "{answer}");
    Ok(())
}

/// A service's namespace has its own credential, the operator's has its own, and root's stays with etcd.
#[tokio::test]
async fn j_each_namespace_holds_its_own_credential_only() -> Result<()> {
    let world = shop::opened().await?;
    for (namespace, who) in [(SHOP_NAMESPACE, SHOP_NAMESPACE), (OPERATOR_NAMESPACE, "operator")] {
        let secrets = Api::<Secret>::namespaced(world.client.clone(), namespace);
        let found = secrets.list(&ListParams::default()).await?;
        let users: Vec<_> = found
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| name.starts_with(&user_secret("")))
            .collect();
        assert_eq!(users, [user_secret(who)], "{namespace}");
    }
    // What etcd's sidecar says of it is no secret.
    let args = ["-n", PLATFORM_NAMESPACE, "logs", "deployment/etcd", "-c", "access"];
    let said = world.run("kubectl", &args, None).await?;
    let secrets = Api::<Secret>::namespaced(world.client.clone(), PLATFORM_NAMESPACE);
    for who in ["root", "operator", SHOP_NAMESPACE] {
        let data = secrets.get(&user_secret(who)).await?.data.unwrap_or_default();
        let password = String::from_utf8(data["password"].0.clone())?;
        assert!(!password.is_empty() && !said.contains(&password), "the password of {who} is in the log");
    }
    Ok(())
}
