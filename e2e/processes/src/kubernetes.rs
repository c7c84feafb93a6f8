//! A real API server with an etcd of its own, and nothing else of Kubernetes.

use fusebox_cluster::tools;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::AuthInfo;
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use rcgen::{CertifiedKey, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::etcd::{Etcd, eventually};
use crate::process::Process;

/// Who may do everything.
const ADMIN: User<'_> = User { name: "admin", token: "admin", groups: "system:masters" };
/// The field manager of what tests apply.
const MANAGER: &str = "test";

/// Somebody that the API server knows by a token.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its token.
    pub token: &'a str,
    /// Its groups, separated by commas.
    pub groups: &'a str,
}

/// A running API server.
pub struct ApiServer {
    // Before what it keeps its state in.
    server: Process,
    port: u16,
    authority: String,
    admin: Client,
    _store: Etcd,
    _folder: TempDir,
}

impl ApiServer {
    /// One that answers, with RBAC, that knows an administrator and these users.
    pub async fn start(users: &[User<'_>]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let store = Etcd::start().await;
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let authority = cert.pem();
        let known = [&[ADMIN], users].concat().into_iter();
        let known = known.map(|User { name, token, groups }| format!("{token},{name},{name},\"{groups}\""));
        let tokens = known.collect::<Vec<_>>().join("\n");
        let accounts = KeyPair::generate().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [
            ("tls.crt", &authority),
            ("tls.key", &signing_key.serialize_pem()),
            ("accounts.key", &accounts.serialize_pem()),
            ("accounts.pub", &accounts.public_key_pem()),
            ("tokens.csv", &tokens),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let port = crate::site::free_port().await;
        let server = Process::start(
            Command::new(tools::find("kube-apiserver").unwrap())
                .args([format!("--etcd-servers={}", store.url()), format!("--secure-port={port}")])
                .args([
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    "--endpoint-reconciler-type=none",
                ])
                .arg(format!("--cert-dir={}", path("certs")))
                .arg(format!("--tls-cert-file={}", path("tls.crt")))
                .arg(format!("--tls-private-key-file={}", path("tls.key")))
                .args(["--service-account-issuer=https://kubernetes.default.svc"])
                .arg(format!("--service-account-key-file={}", path("accounts.pub")))
                .arg(format!("--service-account-signing-key-file={}", path("accounts.key")))
                .arg(format!("--token-auth-file={}", path("tokens.csv")))
                .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"]),
            &folder.path().join("said"),
        );
        let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
        config.root_cert = Some(vec![cert.der().to_vec()]);
        config.auth_info = AuthInfo { token: Some(ADMIN.token.to_owned().into()), ..AuthInfo::default() };
        let admin = Client::try_from(config).unwrap();
        let mut kubernetes = Self { server, port, authority, admin, _store: store, _folder: folder };
        kubernetes.answers().await;
        kubernetes
    }

    /// Stops the process without closing anything: it is silent, and the kernel still accepts for it.
    pub fn freeze(&self, frozen: bool) {
        crate::process::signal(if frozen { "-STOP" } else { "-CONT" }, self.server.pid());
    }

    async fn answers(&mut self) {
        let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
        let mut end = None;
        eventually("the API server answers", async || {
            end = self.server.ended();
            end.is_some() || self.admin.request_text(ready.clone()).await.is_ok()
        })
        .await;
        assert!(end.is_none(), "the API server ended: {}", self.server.said());
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of its certificate, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A client that may do everything, past the wires.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// Writes an object as it is given, whatever it was before. A definition is waited for until it is served.
    pub async fn apply(&self, object: &Value) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("no name: {object}"));
        let params = PatchParams::apply(MANAGER).force();
        let done = self.api(object).patch(name, &params, &Patch::Apply(object)).await;
        let done = done.unwrap_or_else(|error| panic!("{object}: {error}"));
        if object["kind"] == "CustomResourceDefinition" {
            let definitions = Api::<CustomResourceDefinition>::all(self.admin());
            eventually("a definition is served", async || {
                let now = definitions.get(name).await.unwrap();
                let conditions = now.status.and_then(|status| status.conditions).unwrap_or_default();
                conditions.iter().any(|is| is.type_ == "Established" && is.status == "True")
            })
            .await;
        }
        done
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_else(|| panic!("no name: {object}"));
        match self.api(object).delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            done => drop(done.unwrap()),
        }
    }

    /// For objects of the kind, in the namespace, of this one.
    pub fn api(&self, like: &Value) -> Api<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&like["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &text(&like["kind"])));
        match like["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.admin(), namespace, &kind),
            None => Api::all_with(self.admin(), &kind),
        }
    }
}

impl Drop for ApiServer {
    /// Its own etcd must not go first: it would say so for a while.
    fn drop(&mut self) {
        if self.server.ended().is_none() {
            crate::process::signal("-KILL", self.server.pid());
        }
    }
}
