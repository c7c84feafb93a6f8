//! What others do, in the world and on a server.

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceSpec};
use fusebox_processes::ApiServer;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::script::Step;
use super::{LEASE, Memory};

/// Another's finalizer, which keeps an object from going.
const HOLD: &str = "example.com/hold";

fn service(n: usize) -> ResilientServiceSpec {
    serde_saphyr::from_str(&format!("{{ service: {{ name: s{n} }} }}")).unwrap()
}

/// The spec of a route.
pub fn spec(n: usize) -> Value {
    let rule = |host: &str| json!([{ "kind": "Rule", "match": format!("Host(`{host}`)"), "services": [{ "name": "user", "port": 1 }] }]);
    match n {
        0 => json!({ "entryPoints": ["web"], "routes": rule("a.example") }),
        1 => json!({ "routes": rule("b.example") }),
        _ => json!({ "routes": rule("a.example"), "tls": { "secretName": "ours" } }),
    }
}

fn their(field: &str) -> Value {
    if field == "tls" { json!({ "secretName": "theirs" }) } else { json!(["theirs"]) }
}

pub fn in_memory(memory: &Memory, namespace: &str, step: &Step, edits: usize) {
    let Memory { cluster, routes, lease } = memory;
    let at = |name: &str| Ident::new(namespace, name);
    match step {
        Step::Create(name) => {
            let mut all = cluster.resources.try_lock().unwrap();
            all.entry(at(name)).or_insert_with(|| {
                let mut new = ResilientService::new(name, service(0));
                new.metadata.namespace = Some(namespace.to_owned());
                new.metadata.uid = Some(format!("uid-{edits}"));
                new.metadata.generation = Some(1);
                new
            });
        }
        Step::Edit(name) => cluster.others(&at(name), |there| {
            there.spec = service(edits);
            there.metadata.generation = there.metadata.generation.map(|generation| generation + 1);
        }),
        Step::Label(name) => cluster.others(&at(name), |there| {
            there.labels_mut().insert("team".to_owned(), edits.to_string());
        }),
        Step::Guard(name) => cluster.others(&at(name), |there| {
            // Who is on the way out takes no finalizer any more.
            let there_already = there.finalizers().iter().any(|held| held == HOLD);
            if there.metadata.deletion_timestamp.is_none() && !there_already {
                there.finalizers_mut().push(HOLD.to_owned());
            }
        }),
        Step::Strip(name) => cluster.others(&at(name), |there| there.finalizers_mut().clear()),
        Step::Delete(name) => cluster.delete(&at(name), jiff::Timestamp::UNIX_EPOCH),
        Step::TheirRoute(name) => routes.theirs(&at(name), spec(1)),
        Step::TheirField(name, field) => routes.set_field(&at(name), field, their(field)),
        Step::DeleteRoute(name) => routes.lose(&at(name)),
        Step::TouchLease => lease.world.touch(),
        Step::DeleteLease => lease.world.delete(),
        ours => unreachable!("{ours:?}"),
    }
}

/// What is not there, or is there already, is let be.
fn let_be<T>(done: Result<T, kube::Error>) {
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        done => drop(done.unwrap()),
    }
}

pub async fn on_server(server: &ApiServer, namespace: &str, step: &Step, edits: usize) {
    let all = Api::<ResilientService>::namespaced(server.admin(), namespace);
    let leases = Api::<Lease>::namespaced(server.admin(), namespace);
    let like = |name: &str| {
        json!({ "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": name, "namespace": namespace } })
    };
    let merge = async |name: &str, patch: Value| {
        let_be(all.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await);
    };
    match step {
        Step::Create(name) => {
            let_be(all.create(&PostParams::default(), &ResilientService::new(name, service(0))).await);
        }
        Step::Edit(name) => {
            merge(name, json!({ "spec": { "service": { "name": format!("s{edits}") } } })).await;
        }
        Step::Label(name) => {
            merge(name, json!({ "metadata": { "labels": { "team": edits.to_string() } } })).await;
        }
        Step::Guard(name) => {
            let Some(there) = all.get_opt(name).await.unwrap() else { return };
            let mut finalizers = there.finalizers().to_vec();
            if there.metadata.deletion_timestamp.is_none() && !finalizers.iter().any(|held| held == HOLD) {
                finalizers.push(HOLD.to_owned());
                merge(name, json!({ "metadata": { "finalizers": finalizers } })).await;
            }
        }
        Step::Strip(name) => merge(name, json!({ "metadata": { "finalizers": null } })).await,
        Step::Delete(name) => let_be(all.delete(name, &DeleteParams::default()).await),
        Step::TheirRoute(name) => {
            let mut object = like(name);
            let routes = server.api(&object);
            if routes.get_opt(name).await.unwrap().is_none() {
                object["spec"] = spec(1);
                server.apply(&object).await;
            }
        }
        Step::TheirField(name, field) => {
            let mut object = like(name);
            let routes = server.api(&object);
            if routes.get_opt(name).await.unwrap().is_some() {
                object["spec"] = json!({ *field: their(field) });
                let params = PatchParams::apply("theirs").force();
                routes.patch(name, &params, &Patch::Apply(object)).await.unwrap();
            }
        }
        Step::DeleteRoute(name) => server.delete(&like(name)).await,
        Step::TouchLease => {
            let patch = json!({ "metadata": { "labels": { "team": edits.to_string() } } });
            let_be(leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(patch)).await);
        }
        Step::DeleteLease => let_be(leases.delete(LEASE, &DeleteParams::default()).await),
        ours => unreachable!("{ours:?}"),
    }
}
