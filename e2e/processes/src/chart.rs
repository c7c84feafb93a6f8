//! What charts/operator renders, and what the rest of its world must have installed.

use std::path::PathBuf;
use std::process::Command;

use fusebox_cluster::{Places, tools};
use serde_json::Value;

/// The documents of a rendered release.
#[derive(Clone, Debug)]
pub struct Chart {
    objects: Vec<Value>,
}

impl Chart {
    /// As `helm template` renders charts/operator with these values.
    pub fn render(release: &str, namespace: &str, values: &Value) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), values.to_string()).unwrap();
        let done = Command::new(tools::find("helm").unwrap())
            .args(["template", release])
            .arg(checkout().join("charts/operator"))
            .args(["--namespace", namespace, "--values"])
            .arg(file.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "helm template: {}", String::from_utf8_lossy(&done.stderr));
        Self { objects: documents(&String::from_utf8(done.stdout).unwrap()) }
    }

    /// The objects of this kind. One that the chart puts into its release's namespace names it.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The variables of the operator's container that have a value.
    pub fn environment(&self) -> Vec<(String, String)> {
        let deployment = self.of_kind("Deployment").next().expect("the chart has a Deployment");
        let all = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        all.iter()
            .filter_map(|variable| Some((text(&variable["name"])?, text(&variable["value"])?)))
            .collect()
    }
}

/// The custom resource definitions: ours, and Traefik's as its users get them.
pub fn definitions() -> Vec<Value> {
    let traefik = tools::traefik_crds(&Places::find().unwrap()).unwrap();
    let files = [checkout().join("crds/resilientservices.yaml"), traefik];
    files.iter().flat_map(|file| documents(&std::fs::read_to_string(file).unwrap())).collect()
}

fn checkout() -> PathBuf {
    Places::find().unwrap().checkout
}

fn documents(yaml: &str) -> Vec<Value> {
    // One at a time: the reader has a limit for the whole of them.
    let all = yaml.split("\n---").map(|document| document.trim_start_matches("---"));
    all.map(|document| serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}")))
        .filter(|document: &Value| !document.is_null())
        .collect()
}
