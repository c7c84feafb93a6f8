//! Compares what etcd has with what is wanted, and makes the difference.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use etcd_client::{Client, Permission, PermissionType, RoleRevokePermissionOptions};
use fusebox::etcd::end_of;
use fusebox_policy::access::{Access, Grant, Role};
use sha2::{Digest, Sha256};

use super::cli::Wanted;

/// The name that etcd gives its administrator, and its role.
const ROOT: &str = "root";

/// A right as etcd tells it: kind, first key, end of the range.
type Right = (i32, Vec<u8>, Vec<u8>);

/// Makes users and roles. It remembers which passwords it has seen to be right, since looking costs a login.
#[derive(Default)]
pub struct Maker {
    right: BTreeMap<String, [u8; 32]>,
}

impl Maker {
    /// Makes all that is wanted. `open`: authentication is off, so that no login can tell a right password.
    pub async fn make(&mut self, client: &mut Client, wanted: &[Wanted], open: bool) -> anyhow::Result<()> {
        let (roles, users) = (client.role_list().await?, client.user_list().await?);
        for Wanted { role, password } in wanted {
            let name = &role.name;
            if !roles.roles().contains(name) {
                client.role_add(name.as_str()).await.with_context(|| format!("adding the role {name}"))?;
                tracing::info!("role {name}: added");
            }
            rights(client, role).await.with_context(|| format!("the rights of {name}"))?;
            let there = users.users().contains(name);
            self.user(client, name, password, there, open)
                .await
                .with_context(|| format!("the user {name}"))?;
            only_role(client, name, name).await.with_context(|| format!("the roles of {name}"))?;
        }
        Ok(())
    }

    /// Gives etcd its administrator, then turns authentication on.
    pub async fn lock(&mut self, client: &mut Client, root: &str, password: &str) -> anyhow::Result<()> {
        ensure!(root == ROOT, "etcd wants a user {ROOT:?} for that: give --etcd-user {ROOT}");
        if !client.role_list().await?.roles().iter().any(|role| role == ROOT) {
            client.role_add(ROOT).await?;
        }
        let there = client.user_list().await?.users().iter().any(|user| user == root);
        self.user(client, root, password, there, true).await?;
        if !client.user_get(root).await?.roles().iter().any(|role| role == ROOT) {
            client.user_grant_role(root, ROOT).await?;
        }
        client.auth_enable().await?;
        tracing::info!("authentication is on; {root} is etcd's administrator");
        Ok(())
    }

    async fn user(
        &mut self,
        client: &mut Client,
        name: &str,
        password: &str,
        there: bool,
        open: bool,
    ) -> anyhow::Result<()> {
        let digest: [u8; 32] = Sha256::digest(password).into();
        if !there {
            client.user_add(name, password, None).await?;
            tracing::info!("user {name}: added");
        } else if self.right.get(name) != Some(&digest) && (open || !logs_in(client, name, password).await?) {
            client.user_change_password(name, password).await?;
            tracing::info!("user {name}: its password is set");
        }
        self.right.insert(name.to_owned(), digest);
        Ok(())
    }
}

/// Is this the user's password?
async fn logs_in(client: &Client, name: &str, password: &str) -> Result<bool, etcd_client::Error> {
    match client.auth_client().authenticate(name.to_owned(), password.to_owned()).await {
        Ok(_) => Ok(true),
        Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("authentication failed") => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Grants what is missing, takes away what is not wanted.
async fn rights(client: &mut Client, role: &Role) -> anyhow::Result<()> {
    let name = role.name.as_str();
    let told = client.role_get(name).await?.permissions();
    let there: Vec<Right> =
        told.iter().map(|p| (p.get_type(), p.key().to_vec(), p.range_end().to_vec())).collect();
    let wanted: Vec<Right> = role.grants.iter().map(right).collect();
    // Granted first, so that nobody is without a right in between. A right of another kind on the same range is
    // replaced by that.
    for (grant, right) in role.grants.iter().zip(&wanted).filter(|(_, right)| !there.contains(right)) {
        let (_, key, end) = right.clone();
        client
            .role_grant_permission(name, Permission::new(kind(grant.access), key).with_range_end(end))
            .await?;
        tracing::info!("role {name}: {} under {}", grant.access, grant.prefix);
    }
    let is_wanted = |(_, key, end): &&Right| wanted.iter().any(|(_, k, e)| (k, e) == (key, end));
    for (_, key, end) in there.iter().filter(|right| !is_wanted(right)) {
        let options = RoleRevokePermissionOptions::new().with_range_end(end.clone());
        client.role_revoke_permission(name, key.clone(), Some(options)).await?;
        tracing::info!("role {name}: no longer anything at {}", String::from_utf8_lossy(key));
    }
    Ok(())
}

/// The user has this role and no other.
async fn only_role(client: &mut Client, user: &str, role: &str) -> anyhow::Result<()> {
    let told = client.user_get(user).await?;
    for other in told.roles().iter().filter(|there| *there != role) {
        client.user_revoke_role(user, other.as_str()).await?;
        tracing::info!("user {user}: the role {other} is taken away");
    }
    if !told.roles().iter().any(|there| there == role) {
        client.user_grant_role(user, role).await?;
    }
    Ok(())
}

fn kind(access: Access) -> PermissionType {
    match access {
        Access::Read => PermissionType::Read,
        Access::ReadWrite => PermissionType::Readwrite,
    }
}

fn right(grant: &Grant) -> Right {
    (kind(grant.access) as i32, grant.prefix.clone().into_bytes(), end_of(&grant.prefix))
}
