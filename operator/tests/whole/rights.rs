//! The chart's role, both ways: it is enough, and without any one of its verbs the operator says which one is missing.

use std::time::Duration;

use fusebox_processes::{NAMESPACE as RELEASE_NAMESPACE, Operator, Site, in_release, objects};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::workload::{NAMESPACE, values};
use crate::{ALONE, PROGRAM};

/// Ten times what is seen.
const DEADLINE: Duration = Duration::from_secs(90);
/// Between two steps of the workload. No step waits for the one before: with a right missing it may never come.
const PACE: Duration = Duration::from_millis(1500);
const USER: &str = "system:serviceaccount:fusebox:operator-fusebox";
const NAME: &str = "user";
const SERVICE: &str = "user-service";

/// One verb of one rule.
#[derive(Clone, Debug)]
struct Right {
    /// The role without it.
    without: Value,
    verb: String,
    group: String,
    /// With its subresource.
    resource: String,
    /// The only object it is for, if there is one.
    name: Option<String>,
    /// The namespace where the role holds, if not everywhere.
    namespace: Option<String>,
}

impl Right {
    /// What the API server says to whom it is missing.
    fn is_named_in(&self, text: &str) -> bool {
        let missing = format!(
            "cannot {} resource \\\"{}\\\" in API group \\\"{}\\\"",
            self.verb, self.resource, self.group
        );
        text.contains(&missing) || text.contains(&missing.replace('\\', ""))
    }

    /// Whether the API server would let the operator.
    async fn holds(&self, site: &Site) -> bool {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (self.resource.as_str(), None),
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(USER.to_owned()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(self.verb.clone()),
                    group: Some(self.group.clone()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    name: self.name.clone(),
                    namespace: self.namespace.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(site.kubernetes.admin());
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }

    /// Waits until the API server has heard of a change of the roles.
    async fn until(&self, site: &Site, holds: bool) {
        let what = format!("{} {} is {holds}", self.verb, self.resource);
        fusebox_processes::eventually(&what, async || self.holds(site).await == holds).await;
    }
}

/// Every verb of every rule that is bound to the operator's account.
fn rights(site: &Site) -> Vec<Right> {
    let bound = |binding: &&str| {
        let all = site.chart.of_kind(binding);
        all.map(|binding| binding["roleRef"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for (kind, binding) in [("ClusterRole", "ClusterRoleBinding"), ("Role", "RoleBinding")] {
        let bound = bound(&binding);
        for role in site
            .chart
            .of_kind(kind)
            .filter(|role| bound.iter().any(|name| role["metadata"]["name"] == **name))
        {
            let role = in_release(role);
            let strings = |value: &Value| {
                let all = value.as_array().into_iter().flatten();
                all.map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            for (at, rule) in role["rules"].as_array().unwrap().iter().enumerate() {
                let (groups, resources) = (strings(&rule["apiGroups"]), strings(&rule["resources"]));
                assert_eq!(
                    (groups.len(), resources.len()),
                    (1, 1),
                    "one kind a rule, so that each verb is one right: {rule}"
                );
                for verb in strings(&rule["verbs"]) {
                    let mut without = role.clone();
                    let rest = without["rules"][at]["verbs"].as_array_mut().unwrap();
                    rest.retain(|other| *other != *verb);
                    if rest.is_empty() {
                        without["rules"].as_array_mut().unwrap().remove(at);
                    }
                    all.push(Right {
                        without,
                        verb,
                        group: groups[0].clone(),
                        resource: resources[0].clone(),
                        name: strings(&rule["resourceNames"]).pop(),
                        namespace: (kind == "Role").then(|| RELEASE_NAMESPACE.to_owned()),
                    });
                }
            }
        }
    }
    all
}

/// Steps that between them, and the next round of them, use every right.
async fn step(site: &Site, at: usize) {
    let kubernetes = &site.kubernetes;
    let service = objects::service(NAMESPACE, SERVICE);
    let resource = |timeout: &str, tls: bool| {
        let mut spec = json!({
            "service": { "name": SERVICE },
            "inbound": { "timeout": timeout },
            "gateway": {
                "entryPoints": { "plain": "web" },
                "routes": [{ "host": "api.example.com", "pathPrefix": "/users" }],
            },
        });
        if tls {
            spec["gateway"]["entryPoints"]["tls"] = json!("websecure");
            spec["gateway"]["tls"] = json!({ "secretName": "api-cert" });
        }
        objects::resource(NAMESPACE, NAME, &spec)
    };
    match at % 7 {
        0 => {
            kubernetes.apply(&service).await;
            kubernetes.apply(&objects::slice(NAMESPACE, SERVICE, &[("10.0.0.1", true)])).await;
            kubernetes.apply(&resource("1s", true)).await;
        }
        // A route goes.
        1 => drop(kubernetes.apply(&resource("2s", false)).await),
        // An Event, and the same one again.
        2 | 4 => kubernetes.delete(&service).await,
        3 | 5 => drop(kubernetes.apply(&service).await),
        _ => kubernetes.delete(&resource("", false)).await,
    }
}

/// What the operator says: its log, and the conditions of its resource.
async fn said(site: &Site, operator: &Operator) -> (String, String) {
    let api = site.kubernetes.api(&objects::resource(NAMESPACE, NAME, &Value::Null));
    let found = api.get_opt(NAME).await.unwrap();
    (operator.said(), found.map(|found| found.data["status"].to_string()).unwrap_or_default())
}

/// Takes away what a run left, past the operator.
async fn clear(site: &Site) {
    let like = objects::resource(NAMESPACE, NAME, &Value::Null);
    let api = site.kubernetes.api(&like);
    if api.get_opt(NAME).await.unwrap().is_some() {
        let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
        let _ = api.patch(NAME, &PatchParams::default(), &none).await;
        site.kubernetes.delete(&like).await;
    }
    let like = json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": { "namespace": NAMESPACE },
    });
    let routes = site.kubernetes.api(&like);
    routes
        .delete_collection(&kube::api::DeleteParams::default(), &kube::api::ListParams::default())
        .await
        .unwrap();
    site.free_lease().await;
}

/// Runs the workload until the operator names the missing right: where, after which time.
async fn named(site: &Site, right: &Right) -> Option<(&'static str, Duration)> {
    let start = Instant::now();
    let mut operator = site.operator(&[]).await;
    let (mut at, mut next) = (0, start);
    loop {
        if Instant::now() >= next {
            step(site, at).await;
            at += 1;
            next = Instant::now() + PACE;
        }
        let (log, conditions) = said(site, &operator).await;
        let place = if right.is_named_in(&conditions) {
            Some("a condition")
        } else if warned(&log).any(|line| right.is_named_in(line)) {
            Some("the log")
        } else {
            None
        };
        let took = Instant::now() - start;
        if place.is_some() || took > DEADLINE {
            operator.kill().await;
            return place.map(|place| (place, took));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The lines that a person looks at when something is wrong; kube's own, in its debugging form, are not for a person.
fn warned(log: &str) -> impl Iterator<Item = &str> {
    let serious = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    log.lines().filter(serious).filter(|line| !line.contains("Status {"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_role_is_enough_and_each_verb_that_is_taken_away_is_named() {
    let _alone = ALONE.lock().await;
    let site = Site::start(PROGRAM, &values()).await;
    site.kubernetes.apply(&objects::namespace(NAMESPACE)).await;

    let mut operator = site.operator(&[]).await;
    for at in 0..14 {
        step(&site, at).await;
        sleep(PACE).await;
        let (log, conditions) = said(&site, &operator).await;
        assert!(operator.ended().is_none(), "{log}");
        for text in [&log, &conditions] {
            assert!(!text.contains("forbidden"), "step {at}: the role is not enough: {text}");
        }
    }
    operator.kill().await;
    clear(&site).await;

    let rights = rights(&site);
    assert!(!rights.is_empty());
    let mut unused = Vec::new();
    for right in &rights {
        site.kubernetes.apply(&right.without).await;
        right.until(&site, false).await;
        let what = format!("{} {}", right.verb, right.resource);
        match named(&site, right).await {
            Some((place, took)) => println!("without {what}: named in {place} after {took:?}"),
            None => unused.push(what),
        }
        site.grant().await;
        right.until(&site, true).await;
        clear(&site).await;
    }
    assert!(unused.is_empty(), "of {} rights these are not missed, or not named: {unused:?}", rights.len());
    println!("{} rights, each named when it is missing", rights.len());
}
