//! What the API server admits of a resource by the rules of its schema, as kube's CEL judges. Types, patterns and
//! bounds are not judged here.

use std::sync::LazyLock;

use fusebox_policy::v1alpha1::ResilientService;
use kube::CustomResourceExt;
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Value, json};

use super::ClusterWorld;
use crate::model;

static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| {
    let crd = serde_json::to_value(ResilientService::crd()).unwrap();
    compile_schema(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
});

impl ClusterWorld {
    /// Why it is refused, beside what is there of its name: each field with the message of its rule, in order.
    pub fn admits(&self, new: &ResilientService) -> Result<(), String> {
        let json = |of: &ResilientService| json!(of);
        let there: Option<Value> = self.resources.try_lock().unwrap().get(&model::ident(new)).map(json);
        Validator::new().validate_compiled(&RULES, &json(new), there.as_ref()).map_err(|errors| {
            let mut lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            lines.sort();
            lines.join("; ")
        })
    }
}
