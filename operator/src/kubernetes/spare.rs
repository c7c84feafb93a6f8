//! What of a watched object is not kept.

use kube::core::ObjectMeta;

/// Takes out what nobody here reads, and what may be more than all the rest.
pub fn spare(of: &mut ObjectMeta) {
    of.managed_fields = None;
    if let Some(annotations) = &mut of.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let mut of: ObjectMeta = serde_json::from_value(serde_json::json!({
            "name": "user",
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "fusebox.dev/other": "1" },
            "managedFields": [{ "manager": "kubectl" }],
        }))
        .unwrap();
        spare(&mut of);
        let left = serde_json::json!({ "name": "user", "annotations": { "fusebox.dev/other": "1" } });
        assert_eq!(serde_json::to_value(of).unwrap(), left);
    }
}
