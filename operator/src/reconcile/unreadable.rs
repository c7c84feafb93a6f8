//! A resource that cannot be decoded: written under another version of its definition, or past its checks.
//! It disturbs nobody, what was applied of it stays and follows its instances, and its deletion ends like any other.
//! Pure.

use fusebox_policy::v1alpha1::ResilientService;

use super::conditions::reasons;
use crate::kubernetes::Undecodable;
use crate::ports::Notice;

/// What becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Unreadable {
    /// It is being deleted; a clean-up needs no more than its metadata.
    Dying(ResilientService),
    /// What it declares now is left alone, and that is told.
    Left(ResilientService, Notice),
}

/// Decides by what is left of it.
pub fn judge(object: &Undecodable) -> Unreadable {
    let resource = object.rest.clone();
    if resource.metadata.deletion_timestamp.is_some() {
        return Unreadable::Dying(resource);
    }
    let notice = Notice {
        warning: true,
        reason: reasons::UNREADABLE.to_owned(),
        action: "Decode".to_owned(),
        message: format!(
            "this resource cannot be decoded, so it is left as it was applied before: {}; correct it, or \
             upgrade the CRD and the operator together",
            object.error
        ),
    };
    Unreadable::Left(resource, notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Guarded;

    fn judged(metadata: &str) -> Unreadable {
        let guarded: Guarded =
            serde_saphyr::from_str(&format!("{{ metadata: {metadata}, spec: {{ service: 5 }} }}")).unwrap();
        judge(&guarded.0.unwrap_err())
    }

    #[test]
    fn it_is_left_alone_and_told_so() {
        let Unreadable::Left(resource, notice) = judged("{ name: user, namespace: shop, uid: u }") else {
            panic!()
        };
        assert_eq!(resource.metadata.uid.as_deref(), Some("u"));
        assert!(notice.warning && notice.message.contains("cannot be decoded"), "{notice:?}");
    }

    #[test]
    fn its_deletion_ends_like_any_other() {
        let dying = "{ name: user, namespace: shop, uid: u, finalizers: [x], deletionTimestamp: '2026-11-24T21:00:00Z' }";
        let Unreadable::Dying(resource) = judged(dying) else { panic!() };
        assert_eq!(resource.metadata.finalizers, Some(vec!["x".to_owned()]));
    }
}
