//! The workload under one operator that nothing happens to: what other runs are compared with.

use std::time::Duration;

use fusebox_processes::{Operator, Site, Write};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::picture::picture;
use crate::workload::{CLUSTER, NAMESPACE, STEPS, Step, take};

/// How long nothing may be written once a step is done.
pub const REST: Duration = Duration::from_secs(2);
/// Ten times what is seen.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Is a step done, as far as it can be told without a run to compare with?
fn is_done(step: Step, now: &Value) -> bool {
    let resource = &now["kubernetes"]["resources"]["user"];
    if step == Step::Delete {
        return resource.is_null();
    }
    let conditions = resource["status"]["conditions"].as_array();
    let entries = |node: &Value| node["services"]["Services"].as_array().map_or(0, Vec::len);
    let nodes = now["consul"]["nodes"].as_object().unwrap();
    let ours = || nodes.iter().filter(|(name, _)| name.starts_with("fusebox-demo-"));
    let wanted = if step == Step::Scale { 3 } else { 2 };
    let generation = if step == Step::Create { 1 } else { 2 };
    conditions.is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True" && c["observedGeneration"] == generation)
    }) && ours().map(|(_, node)| entries(node)).sum::<usize>() == wanted
        && ours().all(|(_, node)| node["checks"].to_string().contains("fusebox-dead-man"))
}

async fn done(site: &Site, operator: &mut Operator, step: Step) {
    let start = Instant::now();
    loop {
        assert!(operator.ended().is_none(), "{step:?}: the operator ended: {}", operator.said());
        let now = picture(site, CLUSTER, NAMESPACE).await;
        if is_done(step, &now) {
            return;
        }
        assert!(Instant::now() - start < DEADLINE, "never: {step:?}\nit is {now:#}\n{}", operator.said());
        sleep(Duration::from_millis(100)).await;
    }
}

/// What is there after each step, and every write.
pub async fn undisturbed(site: &Site) -> (Vec<Value>, Vec<Write>) {
    site.free_lease().await;
    site.wires.aim(None);
    let mut operator = site.operator(&[]).await;
    let mut pictures = Vec::new();
    for step in STEPS {
        take(site, step).await;
        done(site, &mut operator, step).await;
        // A status is written once a second at most: only what stays is what is there.
        let settled = loop {
            let before = site.wires.writes().len();
            sleep(REST).await;
            if site.wires.writes().len() == before {
                break picture(site, CLUSTER, NAMESPACE).await;
            }
        };
        pictures.push(settled);
    }
    let writes = site.wires.writes();
    operator.kill().await;
    (pictures, writes)
}
