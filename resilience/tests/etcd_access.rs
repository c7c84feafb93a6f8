//! The feed and the report under authentication: the least role, certificates that are rotated, tokens that expire.
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)] // all of it is tests

mod common;
#[path = "common/etcd.rs"]
mod server;

use std::time::Duration;

use common::{command, policy};
use etcd_client::{Client, EventType, Permission, PermissionType, WatchOptions};
use fusebox::Fusebox;
use fusebox::etcd::{EtcdConfig, connect};
use fusebox_policy::access::{Access, AllowedPrefixes};
use fusebox_policy::keys::{Ident, Keys};
use fusebox_policy::policy::CommandPolicy;
use fusebox_policy::wire::{PolicyDocument, PolicyHash, Report};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use server::{Etcd, eventually};
use tokio::time::sleep;

/// The user of the namespace's services.
const USER: &str = "fusebox.demo.shop";

async fn process(etcd: &Etcd, more: &[(&str, &str)]) -> Fusebox {
    let url = etcd.url();
    let base = [
        ("FUSEBOX_SERVICE", "shop/user"),
        ("FUSEBOX_CLUSTER", "demo"),
        ("FUSEBOX_ETCD", url.as_str()),
        ("POD_UID", "uid-1"),
    ];
    let get = |name: &str| {
        let found = more.iter().chain(&base).find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Fusebox::from_variables(get).await.unwrap()
}

async fn publish(client: &mut Client, millis: u64) -> PolicyHash {
    let command = CommandPolicy { timeout_ms: Some(millis.try_into().unwrap()), ..command() };
    let document = PolicyDocument::new("uid", policy(command));
    let key = Keys::new("demo").policy(&Ident::new("shop", "user"));
    client.put(key, document.to_json(), None).await.unwrap();
    document.hash
}

/// The policy is in force, and etcd has its report.
async fn in_force(fusebox: &Fusebox, client: &Client, hash: &PolicyHash) {
    eventually("the policy is in force", async || fusebox.policy_hash().as_ref() == Some(hash)).await;
    let key = Keys::new("demo").report(&Ident::new("shop", "user"), "uid-1");
    eventually("it is reported", async || {
        let found = client.kv_client().get(key.as_str(), None).await.unwrap();
        let report = found.kvs().first().map(|kv| serde_json::from_slice::<Report>(kv.value()).unwrap());
        report.is_some_and(|report| report.hash.as_ref() == Some(hash))
    })
    .await;
}

/// The role of namespace shop and root's, with their users and this password, and authentication on.
async fn lock(client: &mut Client, password: &str) {
    let role = Keys::new("demo").namespace_role("shop", &AllowedPrefixes::new()).unwrap();
    for name in ["root", USER] {
        client.user_add(name, password, None).await.unwrap();
        client.role_add(name).await.unwrap();
        client.user_grant_role(name, name).await.unwrap();
    }
    for grant in role.grants {
        let kind = match grant.access {
            Access::Read => PermissionType::Read,
            Access::ReadWrite => PermissionType::Readwrite,
        };
        client.role_grant_permission(USER, Permission::new(kind, grant.prefix).with_prefix()).await.unwrap();
    }
    client.auth_enable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_least_role_over_tls_is_enough() {
    let mut etcd = Etcd::new().await;
    let ca = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    etcd.tls(&ca.cert.pem(), &ca.signing_key.serialize_pem());
    etcd.run().await;
    let (ca, password) = (etcd.write("ca", &ca.cert.pem()), etcd.write("password", "secret\n"));
    let admin = EtcdConfig::new([etcd.url()]).ca(&ca);
    let mut client = connect(&admin).await.unwrap();
    let hash = publish(&mut client, 50).await;
    lock(&mut client, "secret").await;
    let fusebox = process(
        &etcd,
        &[
            ("FUSEBOX_ETCD_USER", USER),
            ("FUSEBOX_ETCD_PASSWORD_FILE", &password),
            ("FUSEBOX_ETCD_CA_FILE", &ca),
        ],
    )
    .await;
    let client = connect(&admin.user("root", &password)).await.unwrap();
    in_force(&fusebox, &client, &hash).await;
    fusebox.shutdown().await;
    let key = Keys::new("demo").report(&Ident::new("shop", "user"), "uid-1");
    assert!(client.kv_client().get(key, None).await.unwrap().kvs().is_empty(), "it may end its lease too");
}

/// An authority that signs for etcd, the service and root.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// A certificate and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Puts everything of it in place; a client of root.
    fn install(&self, etcd: &mut Etcd) -> EtcdConfig {
        let (cert, key) = self.sign("etcd");
        etcd.tls(&cert, &key);
        let ca = etcd.write("ca", &self.1);
        let mut files = Vec::new();
        for name in [USER, "root"] {
            let (cert, key) = self.sign(name);
            files.push((etcd.write(name, &cert), etcd.write(&format!("{name}.key"), &key)));
        }
        EtcdConfig::new([etcd.url()]).ca(ca).certificate(&files[1].0, &files[1].1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_certificates_and_a_new_authority_need_no_restart() {
    let mut etcd = Etcd::new().await;
    let admin = Authority::new().install(&mut etcd);
    let path = |name: &str| etcd.folder().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca"), path(USER), path(&format!("{USER}.key")));
    etcd.argument("--client-cert-auth");
    etcd.argument(format!("--trusted-ca-file={ca}"));
    etcd.run().await;
    let mut client = connect(&admin).await.unwrap();
    let first = publish(&mut client, 50).await;
    lock(&mut client, "nobody knows it").await;
    let files = [
        ("FUSEBOX_ETCD_CA_FILE", ca.as_str()),
        ("FUSEBOX_ETCD_CERT_FILE", &cert),
        ("FUSEBOX_ETCD_KEY_FILE", &key),
    ];
    let fusebox = process(&etcd, &files).await;
    in_force(&fusebox, &client, &first).await;

    etcd.kill().await;
    let admin = Authority::new().install(&mut etcd);
    etcd.run().await;
    let mut client = connect(&admin).await.unwrap();
    let second = publish(&mut client, 60).await;
    in_force(&fusebox, &client, &second).await;
}

/// F17: the token is long gone when the next request needs one.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_stops_neither_the_feed_nor_the_report() {
    let mut etcd = Etcd::new().await;
    etcd.argument("--auth-token-ttl=1");
    Box::pin(expires(etcd)).await;
}

/// The other kind, which expires however much it is used.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_signed_token_stops_neither_the_feed_nor_the_report() {
    let mut etcd = Etcd::new().await;
    let key = KeyPair::generate().unwrap();
    let (private, public) =
        (etcd.write("token.key", &key.serialize_pem()), etcd.write("token.pub", &key.public_key_pem()));
    etcd.argument(format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=1s"));
    Box::pin(expires(etcd)).await;
}

async fn expires(mut etcd: Etcd) {
    etcd.run().await;
    let mut client = etcd.client().await;
    let first = publish(&mut client, 50).await;
    lock(&mut client, "secret").await;
    let password = etcd.write("password", "secret");
    let admin = EtcdConfig::new([etcd.url()]).user("root", &password);
    let mut client = connect(&admin).await.unwrap();
    let user = [("FUSEBOX_ETCD_USER", USER), ("FUSEBOX_ETCD_PASSWORD_FILE", &password)];
    let fusebox = process(&etcd, &user).await;
    in_force(&fusebox, &client, &first).await;
    // A lease's renewals are one stream, opened with a token: with the token goes the stream, and a new lease follows.
    eventually("a token has expired", async || common::metric(&fusebox, "report_leases_total") > 1).await;
    let second = publish(&mut client, 60).await;
    in_force(&fusebox, &client, &second).await;
    assert_eq!(common::metric(&fusebox, "feed_connected"), 1);
    let key = Keys::new("demo").report(&Ident::new("shop", "user"), "uid-1");
    let mut history = client.watch(key, Some(WatchOptions::new().with_start_revision(1))).await.unwrap();
    let mut seen = None;
    while seen.as_ref() != Some(&second) {
        for event in history.message().await.unwrap().unwrap().events() {
            assert_eq!(event.event_type(), EventType::Put, "there is a report all the time");
            let report: Report = serde_json::from_slice(event.kv().unwrap().value()).unwrap();
            seen = report.hash;
        }
    }

    // The password is another now, and the file says so.
    client.user_change_password(USER, "another").await.unwrap();
    // Several tokens' life with the wrong password: what it does meanwhile is to fail, which nobody outside sees.
    sleep(Duration::from_secs(5)).await;
    etcd.write("password", "another");
    let third = publish(&mut client, 70).await;
    in_force(&fusebox, &client, &third).await;
}
