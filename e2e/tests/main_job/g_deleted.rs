//! Deleted means that Consul, etcd and Traefik hold nothing of it.

use anyhow::{Result, ensure};
use fusebox_e2e::{consul, etcd, eventually, gateway, resource, shop};
use kube::api::DeleteParams;

#[tokio::test]
async fn g_deleted_leaves_nothing() -> Result<()> {
    let world = shop::opened().await?;
    assert!(!consul::instances(&world, "user.service").await?.is_empty());
    resource::api(&world).delete("user", &DeleteParams::default()).await?;
    eventually("the resource is gone", || async {
        ensure!(resource::api(&world).get_opt("user").await?.is_none(), "its finalizer holds it");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    assert_eq!(consul::instances(&world, "user.service").await?, []);
    let keys = etcd::keys();
    for key in
        [keys.policy(&etcd::ident("user")), keys.config(&etcd::ident("user")), keys.raw(&etcd::ident("user"))]
    {
        assert_eq!(etcd::get(&world, &key).await?, None, "{key}");
    }
    assert_eq!(etcd::get(&world, "service.user.timeout").await?, None);
    assert!(etcd::range(&world, "/fusebox/v1/claims/raw/").await?.is_empty());
    let routes = world
        .kubectl(&["get", "ingressroutes.traefik.io", "-l", "fusebox.dev/service=user", "-o", "name"])
        .await?;
    assert_eq!(routes, "");
    eventually("Traefik answers 404", || async {
        let status = gateway::get(&world, gateway::API, "/users/Ada").await?.status();
        ensure!(status == 404, "{status}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    // The caller goes on without it, and says why.
    let hello = gateway::hello(&world, "Ada").await?;
    assert_eq!(hello.msg, "default user", "{hello:?}");
    Ok(())
}
