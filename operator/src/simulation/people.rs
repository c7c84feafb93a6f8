//! What people and Kubernetes itself do: resources, Services, instances.

use std::time::Duration;

use fusebox_policy::keys::Ident;
use fusebox_policy::v1alpha1::{FINALIZER, PROCEED_ANNOTATION, ResilientService};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::town::{Later, Town, steady};
use crate::model::{Endpoint, ServicePort, ServiceView};

/// Resources and the Services that they are for.
pub const NAMES: [(&str, &str); 4] = [("shop", "a"), ("shop", "b"), ("shop", "c"), ("other", "d")];

fn one<'a>(of: &[&'a str]) -> &'a str {
    of[fastrand::usize(0..of.len())]
}

fn percent(of: u8) -> bool {
    fastrand::u8(0..100) < of
}

/// What a resource of this name may ask for: mostly what is its own, now and then what others want as well.
fn wish(of: &Ident, prefix: &str) -> String {
    let name = &of.name;
    let contested =
        |own: &str, others: &[&str]| if percent(55) { own.to_owned() } else { one(others).to_owned() };
    let service = if of.namespace == "shop" { contested(name, &["common"]) } else { name.clone() };
    let mut lines = vec![
        format!("service: {{ name: {service}, port: {} }}", one(&["grpc", "grpc", "http"])),
        format!("outbound: {{ timeout: {}ms }}", one(&["200", "300"])),
    ];
    if percent(20) {
        lines.push("inbound: { rateLimit: { requestsPerSecond: 90, scope: Service } }".to_owned());
    }
    if percent(85) {
        let consul = contested(&format!("{name}.service"), &["n1", "n2"]);
        lines.push(format!("consul: {{ serviceName: {consul}, tags: [{}] }}", one(&["v1", "v2"])));
    }
    if percent(70) {
        let host = contested(&format!("{name}.io"), &["x.io"]);
        let path = one(&["/x", "/y"]);
        lines.push(format!("gateway:\n  routes: [{{ host: {host}, pathPrefix: {path} }}]"));
        // Without its entry point it is not valid.
        if percent(25) {
            lines.push("  tls: { secretName: cert }".to_owned());
            if percent(70) {
                lines.push("  entryPoints: { plain: web, tls: websecure }".to_owned());
            }
        }
    }
    if percent(60) {
        lines.push(format!("config:\n  document: {{ limit: {} }}", one(&["1", "2"])));
        if of.namespace == "shop" && percent(70) {
            let key = contested(name, &["k1", "k2"]);
            lines.push(format!("  etcdKeys: {{ {prefix}{key}: '{}' }}", one(&["1", "2"])));
        }
    }
    lines.join("\n")
}

fn spec(yaml: &str) -> fusebox_policy::v1alpha1::ResilientServiceSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

impl Town {
    /// How it is before the first day.
    pub fn found(&mut self, at: usize) {
        for (namespace, name) in NAMES.into_iter().chain([("shop", "common"), ("shop", "steady")]) {
            let of = Ident::new(namespace, name);
            self.service(at, &of);
            self.scale(at, &of, 3);
        }
        self.create(
            at,
            &steady(),
            "{ service: { name: steady, port: grpc }, consul: { serviceName: steady.service }, gateway: { routes: \
             [{ host: steady.io }] } }",
        );
    }

    pub fn service(&mut self, at: usize, of: &Ident) {
        let port = |name: &str, number| ServicePort { name: name.into(), number, app_protocol: None };
        let ports = vec![port("grpc", 50051), port("http", 80)];
        let view = ServiceView { name: of.name.clone(), ports, family: "IPv4".into() };
        self.places[at].change(|cluster| {
            let mut all = cluster.services.try_lock().unwrap();
            all.entry(of.clone()).or_insert_with(|| (view, Vec::new()));
        });
    }

    pub fn endpoints<T>(&self, at: usize, of: &Ident, change: impl FnOnce(&mut Vec<Endpoint>) -> T) {
        self.places[at].change(|cluster| {
            if let Some((_, all)) = cluster.services.try_lock().unwrap().get_mut(of) {
                change(all);
            }
        });
    }

    /// So many instances more.
    pub fn scale(&mut self, at: usize, of: &Ident, more: usize) {
        let first = self.instances;
        self.instances += more as u64;
        let new = (first..self.instances).map(|n| Endpoint {
            instance: format!("pod-{n}"),
            display: format!("{}-{n}", of.name),
            address: format!("10.0.{}.{}", n / 250, n % 250),
            ports: [("grpc".to_owned(), 50051), ("http".to_owned(), 8080)].into(),
            ready: true,
        });
        let new: Vec<Endpoint> = new.collect();
        self.endpoints(at, of, |all| all.extend(new));
    }

    /// An instance ends in order: first it is not ready, then it is not there.
    pub fn shut_down(&mut self, at: usize, of: &Ident, most: usize) {
        let mut gone = Vec::new();
        self.endpoints(at, of, |all| {
            let first = fastrand::usize(0..=all.len());
            for endpoint in all.iter_mut().skip(first).take(most) {
                endpoint.ready = false;
                gone.push(endpoint.instance.clone());
            }
        });
        for instance in gone {
            let wait = Duration::from_millis(fastrand::u64(100..20_000));
            self.after(wait, Later::Remove(at, of.clone(), instance));
        }
    }

    /// Creates it, or edits it.
    pub fn declare(&mut self, at: usize, of: &Ident) {
        let wish = wish(of, &self.places[at].key_prefix());
        match self.places[at].get(of) {
            None => self.create(at, of, &wish),
            Some(there) if there.metadata.deletion_timestamp.is_none() => self.places[at].change(|cluster| {
                let mut all = cluster.resources.try_lock().unwrap();
                let resource = all.get_mut(of).unwrap();
                let spec = spec(&wish);
                if resource.spec != spec {
                    resource.spec = spec;
                    let generation = resource.metadata.generation.unwrap_or_default();
                    resource.metadata.generation = Some(generation + 1);
                }
            }),
            Some(_) => {}
        }
    }

    fn create(&mut self, at: usize, of: &Ident, yaml: &str) {
        self.uids += 1;
        let mut new = ResilientService::new(&of.name, spec(yaml));
        new.metadata.namespace = Some(of.namespace.clone());
        // The order of UIDs is not that of their creation.
        new.metadata.uid = Some(format!("{}-{:04x}-{}", of.name, fastrand::u16(..), self.uids));
        new.metadata.creation_timestamp = Some(Time(self.places[at].wall()));
        new.metadata.generation = Some(1);
        self.places[at].change(|cluster| cluster.resources.try_lock().unwrap().insert(of.clone(), new));
    }

    pub fn delete(&mut self, at: usize, of: &Ident) {
        let now = self.places[at].wall();
        self.places[at].change(|cluster| {
            let mut all = cluster.resources.try_lock().unwrap();
            let Some(resource) = all.get_mut(of) else { return };
            resource.metadata.deletion_timestamp.get_or_insert(Time(now));
            if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
                all.remove(of);
            }
        });
    }

    /// Its finalizer is taken off by hand.
    pub fn force_away(&mut self, at: usize, of: &Ident) {
        self.places[at].change(|cluster| cluster.resources.try_lock().unwrap().remove(of));
    }

    /// A person lets go what is held back, or ends that. False: it was so.
    pub fn proceed(&mut self, at: usize, of: &Ident, proceed: bool) -> bool {
        let there = self.places[at].get(of);
        if there.is_none_or(|there| there.annotations().contains_key(PROCEED_ANNOTATION) == proceed) {
            return false;
        }
        self.places[at].change(|cluster| {
            let mut all = cluster.resources.try_lock().unwrap();
            let annotations = all.get_mut(of).unwrap().annotations_mut();
            if proceed {
                annotations.insert(PROCEED_ANNOTATION.to_owned(), "true".to_owned());
            } else {
                annotations.remove(PROCEED_ANNOTATION);
            }
        });
        true
    }
}
