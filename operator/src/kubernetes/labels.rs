//! Of which Service each `EndpointSlice` is, so that one whose label changes is news to both.

use std::collections::HashMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use super::SERVICE_LABEL;

/// As the events so far say.
#[derive(Debug, Default)]
pub struct Labels {
    known: HashMap<ObjectRef<EndpointSlice>, String>,
    /// What a list brought so far: it counts at its end.
    list: HashMap<ObjectRef<EndpointSlice>, String>,
}

impl Labels {
    /// The Services that an event is about; none where it is a list's.
    pub fn of(&mut self, event: &Event<EndpointSlice>) -> Vec<String> {
        let service = |slice: &EndpointSlice| slice.labels().get(SERVICE_LABEL).cloned();
        let (before, now) = match event {
            Event::Apply(slice) => {
                let (of, now) = (ObjectRef::from_obj(slice), service(slice));
                let before = match &now {
                    Some(now) => self.known.insert(of, now.clone()),
                    None => self.known.remove(&of),
                };
                (before, now)
            }
            Event::Delete(slice) => (self.known.remove(&ObjectRef::from_obj(slice)), service(slice)),
            Event::Init => {
                self.list.clear();
                return Vec::new();
            }
            Event::InitApply(slice) => {
                self.list.extend(service(slice).map(|service| (ObjectRef::from_obj(slice), service)));
                return Vec::new();
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.list);
                return Vec::new();
            }
        };
        let before = before.filter(|before| now.as_ref() != Some(before));
        before.into_iter().chain(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn slice(name: &str, service: &str) -> EndpointSlice {
        let labels = (!service.is_empty()).then(|| [(SERVICE_LABEL.to_owned(), service.to_owned())].into());
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("shop".to_owned()),
            labels,
            ..ObjectMeta::default()
        };
        EndpointSlice { metadata, ..EndpointSlice::default() }
    }

    #[test]
    fn a_label_that_changes_is_about_both() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        let mut labels = Labels::default();
        let mut about = |event| labels.of(&event).join(" ");
        assert_eq!(about(Apply(slice("a", "one"))), "one");
        assert_eq!(about(Apply(slice("a", "one"))), "one");
        assert_eq!(about(Apply(slice("a", "two"))), "one two");
        assert_eq!(about(Apply(slice("a", "two"))), "two");
        // The watch was interrupted.
        for event in [Init, InitApply(slice("b", "three"))] {
            assert_eq!(about(event), "");
        }
        assert_eq!(about(Apply(slice("a", "two"))), "two", "a list counts at its end");
        assert_eq!(about(InitDone), "");
        assert_eq!(about(Apply(slice("a", "four"))), "four", "the list had none of it");
        assert_eq!(about(Apply(slice("b", "four"))), "three four");
        assert_eq!(about(Apply(slice("b", ""))), "four");
        assert_eq!(about(Delete(slice("a", "four"))), "four");
        assert!(labels.known.is_empty(), "what is gone is forgotten: {labels:?}");
    }
}
