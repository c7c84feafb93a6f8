//! A source that cannot be, for settings that are wrong.

use super::{Following, Source, Teller};

/// Knows nobody, and why.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl Source for Broken {
    fn follow(&self, _: &str, told: Teller) -> Following {
        told.failed(&self.0);
        Box::pin(std::future::pending())
    }
}
