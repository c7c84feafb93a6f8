//! Reached through Traefik: HTTP, HTTPS and gRPC, from several instances; and by name from a caller.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use fusebox_e2e::user::GetUserRequest;
use fusebox_e2e::{World, eventually, gateway, shop};

#[tokio::test]
async fn b_http_from_several_instances() -> Result<()> {
    let world = shop::opened().await?;
    assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada");
    both_answer(&world).await
}

async fn both_answer(world: &World) -> Result<()> {
    eventually("both instances answer", || async {
        let seen = gateway::answering(world, 20).await?;
        ensure!(seen.len() == 2, "{seen:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

#[tokio::test]
async fn b_https_with_the_certificate_of_the_secret() -> Result<()> {
    let world = shop::opened().await?;
    let ca = shop::ca(&world).await?;
    let (client, url) = gateway::https(&world, gateway::API, &ca)?;
    let text = eventually("HTTPS with our certificate", || async {
        Ok::<_, anyhow::Error>(
            client.get(format!("{url}/users/Ada")).send().await?.error_for_status()?.text().await?,
        )
    })
    .await?;
    assert!(text.contains("Hello, Ada"), "{text}");
    Ok(())
}

#[tokio::test]
async fn b_grpc() -> Result<()> {
    let world = shop::opened().await?;
    let mut client = gateway::grpc(&world).await?;
    let answer = client.get_user(GetUserRequest { name: "Ada".into() }).await?;
    assert_eq!(answer.get_ref().msg, "Hello, Ada");
    let error =
        client.get_user(GetUserRequest { name: String::new() }).await.expect_err("an empty name is refused");
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    Ok(())
}

#[tokio::test]
async fn b_a_pod_deleted_in_an_orderly_way_loses_no_request() -> Result<()> {
    let world = Arc::new(shop::opened().await?);
    both_answer(&world).await?;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (world, stop, count) = (world.clone(), stop.clone(), count.clone());
            tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.insert(gateway::greet(&world, "Ada").await?.instance);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, anyhow::Error>(seen)
            })
        })
        .collect();
    let victim = shop::pods(&world, "user-service").await?.remove(0).metadata.name.unwrap_or_default();
    world.kubectl(&["delete", "pod", &victim, "--wait=true"]).await?;
    shop::scale(&world, "user-service", 2).await?;
    let during = count.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    for client in clients {
        seen.extend(client.await??);
    }
    assert!(during > 20, "only {during} requests while the pod went");
    assert!(seen.contains(&victim), "the deleted pod answered before: {seen:?}");
    Ok(())
}

#[tokio::test]
async fn b_the_caller_finds_it_by_name() -> Result<()> {
    let world = shop::opened().await?;
    let hello = gateway::hello(&world, "Ada").await?;
    assert_eq!((hello.msg.as_str(), hello.fallback), ("Hello, Ada", false));
    Ok(())
}
