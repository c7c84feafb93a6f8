//! A resource that may not be decodable: written under another version of its definition, or past its checks. It keeps
//! nobody from being watched, and what its status says that it holds stays its own.

use std::borrow::Cow;

use fusebox_policy::v1alpha1::{ResilientService, ResilientServiceSpec, ResilientServiceStatus, ServiceRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// As a watch delivers it.
#[derive(Clone, Debug)]
pub struct Guarded(pub Result<ResilientService, Undecodable>);

/// What can be told of one that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Undecodable {
    /// Why it cannot.
    pub error: String,
    /// Its metadata and what it holds; it asks for nothing.
    pub rest: ResilientService,
}

impl Guarded {
    /// The resource, or what is left of it: enough to know what it holds.
    pub fn holder(&self) -> &ResilientService {
        self.0.as_ref().unwrap_or_else(|undecodable| &undecodable.rest)
    }
}

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Value::deserialize(deserializer)?;
        let error = match ResilientService::deserialize(&whole) {
            Ok(resource) => return Ok(Self(Ok(resource))),
            Err(error) => error.to_string(),
        };
        let metadata = ObjectMeta::deserialize(&whole["metadata"]).map_err(serde::de::Error::custom)?;
        let claims = whole["status"]["claims"].as_array().into_iter().flatten();
        let claims = claims.filter_map(|claim| claim.as_str().map(str::to_owned)).collect();
        let spec = ResilientServiceSpec {
            // No Service can have this name.
            service: ServiceRef { name: String::new(), port: None },
            inbound: None,
            outbound: None,
            shadow: None,
            consul: None,
            gateway: None,
            config: None,
        };
        let mut rest = ResilientService::new(metadata.name.as_deref().unwrap_or_default(), spec);
        rest.metadata = metadata;
        rest.status = Some(ResilientServiceStatus { claims, ..ResilientServiceStatus::default() });
        Ok(Self(Err(Undecodable { error, rest })))
    }
}

impl Resource for Guarded {
    type DynamicType = <ResilientService as Resource>::DynamicType;
    type Scope = <ResilientService as Resource>::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        ResilientService::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        ResilientService::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        ResilientService::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        ResilientService::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.holder().meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(resource) => resource.meta_mut(),
            Err(undecodable) => undecodable.rest.meta_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{self, Claim};

    fn read(spec: &str, claims: &str) -> Guarded {
        let object = format!(
            "{{ metadata: {{ name: user, namespace: shop, uid: u }}, spec: {spec}, status: {{ claims: {claims} }} }}"
        );
        serde_saphyr::from_str(&object).unwrap()
    }

    #[test]
    fn of_one_that_cannot_be_decoded_it_is_known_who_it_is_and_what_it_holds() {
        let bad = read("{ service: 5 }", "[consul/User, 7, route/shop.test/api]");
        let told = bad.0.as_ref().unwrap_err();
        assert!(told.error.contains("invalid type"), "{}", told.error);
        assert_eq!(bad.meta().uid.as_deref(), Some("u"));
        let holds = [Claim::ConsulName("user".into()), Claim::Route("shop.test".into(), "/api".into())];
        assert_eq!(claims::held(bad.holder()), holds);
        assert_eq!(claims::asked(bad.holder()), [Claim::Service(String::new())]);
        assert!(claims::held(read("{ service: 5 }", "7").holder()).is_empty());
    }

    #[test]
    fn one_that_can_be_decoded_is_itself() {
        let good = read("{ service: { name: user } }", "[service/user]");
        assert_eq!(good.0.unwrap().spec.service.name, "user");
    }
}
