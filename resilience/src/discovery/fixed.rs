//! Endpoints from code.

use super::{Endpoint, Following, Source, Teller};

/// The same endpoints whatever name is asked for.
#[derive(Debug)]
pub(super) struct Fixed(pub(super) Vec<Endpoint>);

impl Source for Fixed {
    fn follow(&self, _: &str, told: Teller) -> Following {
        told.found(self.0.clone());
        Box::pin(std::future::pending())
    }
}
