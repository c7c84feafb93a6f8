//! Looking a user up, under the policy of the command `find_user`.

use fusebox::Fusebox;
use tonic::Status;

use super::store::Store;
use crate::UserName;

/// Tells that the store gave no answer and the user was greeted by the name asked for.
pub(super) const FALLBACK: &str = "x-fallback";

/// Finds users.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    fusebox: Fusebox,
    store: Store,
}

/// A user, and how we know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// The store gave no answer.
    pub(super) fallback: bool,
}

impl Found {
    pub(super) fn greeting(&self) -> String {
        format!("Hello, {}", self.name)
    }
}

impl Users {
    pub(super) fn new(fusebox: Fusebox, store: &str) -> anyhow::Result<Self> {
        Ok(Self { fusebox, store: Store::new(store)? })
    }

    /// The user of this name; one that is as good as the name itself if the store gives no answer and
    /// the policy allows it.
    pub(super) async fn find(&self, name: String) -> Result<Found, Status> {
        let name =
            UserName::try_from(name).map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        self.fusebox
            .command("find_user")
            .call(|| self.store.find(&name))
            .or_fallback(|_| Found { name: name.to_string(), fallback: true })
            .await
            .map_err(Status::from)
    }
}
