//! The gRPC methods that the service has told us about: what a message must look like that a policy
//! answers with.

#[cfg(feature = "descriptors")]
pub use with::DescriptorError;

#[cfg(feature = "descriptors")]
pub(crate) use with::Descriptors;
#[cfg(not(feature = "descriptors"))]
pub(crate) use without::Descriptors;

#[cfg(feature = "descriptors")]
mod with {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;
    use prost_reflect::prost::Message;
    use prost_reflect::{DescriptorPool, DynamicMessage};

    /// What was given is no set of descriptors.
    #[derive(Debug, thiserror::Error)]
    #[error("this is no set of file descriptors with everything they import: {0}")]
    pub struct DescriptorError(prost_reflect::DescriptorError);

    /// The methods of the descriptors that were registered last.
    #[derive(Debug, Default)]
    pub(crate) struct Descriptors(ArcSwapOption<DescriptorPool>);

    impl Descriptors {
        /// Reads a `FileDescriptorSet`.
        pub(crate) fn register(&self, set: &[u8]) -> Result<(), DescriptorError> {
            let pool = DescriptorPool::decode(set).map_err(DescriptorError)?;
            self.0.store(Some(Arc::new(pool)));
            Ok(())
        }

        /// The response message of a method, from its JSON. Says what is wrong with it, if anything.
        pub(crate) fn encode(&self, service: &str, method: &str, json: &str) -> Result<Vec<u8>, String> {
            let pool = self.0.load();
            let Some(pool) = pool.as_ref() else {
                return Err("the service has not registered its descriptors, see \
                            Fusebox::register_descriptors"
                    .to_owned());
            };
            let found = pool.get_service_by_name(service);
            let Some(method) = found.as_ref().and_then(|s| s.methods().find(|m| m.name() == method)) else {
                return Err(format!("the service has no method {service}/{method} in its descriptors"));
            };
            let message = method.output();
            let mut json = serde_json::Deserializer::from_str(json);
            let read = DynamicMessage::deserialize(message.clone(), &mut json);
            let read = read.and_then(|read| json.end().map(|()| read));
            read.map(|read| read.encode_to_vec())
                .map_err(|error| format!("message is no {}: {error}", message.full_name()))
        }
    }
}

#[cfg(not(feature = "descriptors"))]
mod without {
    /// No method: the library was built without the feature.
    #[derive(Debug, Default)]
    pub(crate) struct Descriptors(());

    impl Descriptors {
        /// Says that it cannot.
        #[allow(clippy::unused_self)] // as with the feature
        pub(crate) fn encode(&self, _: &str, _: &str, _: &str) -> Result<Vec<u8>, String> {
            Err("the service was built without fusebox's feature `descriptors`".to_owned())
        }
    }
}
