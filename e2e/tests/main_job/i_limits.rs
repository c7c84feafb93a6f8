//! Limits and answers of an inbound policy, and a candidate beside it: from the resource to the caller.

use std::time::Duration;

use anyhow::{Result, ensure};
use fusebox_e2e::user::GetUserRequest;
use fusebox_e2e::{World, etcd, eventually, gateway, resource, shop};
use serde_json::{Value, json};
use tokio::time::Instant;

fn methods(of_both: &Value, grpc: &Value, http: &Value) -> Value {
    let merged = |matches: Value, own: &Value| {
        let mut method = json!({ "match": matches });
        for part in [of_both, own] {
            for (key, value) in part.as_object().into_iter().flatten() {
                method[key] = value.clone();
            }
        }
        method
    };
    json!({ "inbound": { "methods": [
        merged(json!({ "grpc": { "service": "user.v1.UserService", "method": "GetUser" } }), grpc),
        merged(json!({ "http": { "method": "GET", "pathPrefix": "/users" } }), http),
    ] } })
}

async fn fleet(world: &World) -> Result<Option<String>> {
    etcd::get(world, &etcd::keys().fleet(&etcd::ident("user"))).await
}

/// The rate is of all instances together: each has its part, and the parts follow the number of instances.
#[tokio::test]
async fn i_a_rate_of_the_service_is_shared_by_its_instances() -> Result<()> {
    let world = shop::opened().await?;
    let rate = json!({ "rateLimit": { "requestsPerSecond": 4, "burst": 4, "scope": "Service" } });
    resource::patch(&world, "user", methods(&rate, &json!({}), &json!({}))).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    assert_eq!(fleet(&world).await?.as_deref(), Some(r#"{"ready":2}"#));
    // Each instance takes up the number by itself, after its policy.
    eventually("both instances share the rate", || async {
        // Lets the buckets fill up: what is asserted below is how much they let through from full.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        let (mut passed, mut refused) = (0, 0);
        for _ in 0..40 {
            let answer = gateway::get(&world, gateway::API, "/users/Ada").await?;
            let status = answer.status().as_u16();
            let reason = answer.headers().get("fusebox-reason").map(|reason| reason.as_bytes().to_vec());
            match (status, reason.as_deref()) {
                (200, _) => passed += 1,
                (429, Some(b"rate")) => {
                    ensure!(answer.headers().contains_key("retry-after"), "it says when to try again");
                    refused += 1;
                }
                other => anyhow::bail!("{other:?}"),
            }
        }
        // The burst, what the rate adds in the meantime, and a call more for each instance.
        let seconds = (Instant::now() - began).as_secs() + 1;
        ensure!(refused > 0 && passed <= 4 + 4 * seconds + 2, "{passed} passed in {seconds} s");
        Ok::<_, anyhow::Error>(())
    })
    .await?;

    shop::scale(&world, "user-service", 3).await?;
    eventually("a third instance counts", || async {
        let count = fleet(&world).await?;
        ensure!(count.as_deref() == Some(r#"{"ready":3}"#), "{count:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    shop::scale(&world, "user-service", 2).await?;
    resource::patch(&world, "user", methods(&json!({}), &json!({}), &json!({}))).await?;
    eventually("nobody needs the number any more", || async {
        ensure!(fleet(&world).await?.is_none(), "it is still there");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

#[tokio::test]
async fn i_a_policy_answers_in_place_of_an_instance() -> Result<()> {
    let world = shop::opened().await?;
    let policy = methods(
        &json!({ "timeout": "200ms" }),
        &json!({ "fallback": { "message": { "msg": "Hello, whoever you are" } } }),
        &json!({ "fallback": { "contentType": "application/json", "body": r#"{"msg":"Hello"}"# } }),
    );
    resource::patch(&world, "user", policy).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    shop::store(&world, 1000, 0).await?;
    let answer = gateway::get(&world, gateway::API, "/users/Ada").await?;
    assert_eq!((answer.status().as_u16(), &answer.headers()["fusebox-reason"]), (200, &"timeout".parse()?));
    assert_eq!(answer.text().await?, r#"{"msg":"Hello"}"#);
    let mut client = gateway::grpc(&world).await?;
    let answer = client.get_user(GetUserRequest { name: "Ada".into() }).await?;
    assert_eq!(answer.metadata().get("fusebox-fallback").map(|v| v.as_bytes()), Some(&b"true"[..]));
    assert_eq!(answer.into_inner().msg, "Hello, whoever you are");

    // A message that GetUserResponse has not: no instance takes the policy, and the resource says which and why.
    let wrong =
        methods(&json!({}), &json!({ "fallback": { "message": { "message": "Hello" } } }), &json!({}));
    resource::patch(&world, "user", wrong).await?;
    let rejected = resource::until_reason(&world, "user", "Enforced", "False", Some("Rejected")).await?;
    let message = &resource::condition(&rejected, "Enforced")?.message;
    assert!(message.contains("GetUser") && message.contains("message"), "{message}");
    Ok(())
}

#[tokio::test]
async fn i_a_candidate_tells_what_it_would_have_done_and_does_nothing() -> Result<()> {
    let world = shop::opened().await?;
    let candidate =
        json!({ "shadow": { "outbound": { "commands": [{ "name": "find_user", "timeout": "50ms" }] } } });
    resource::patch(&world, "user", candidate).await?;
    resource::until(&world, "user", "Enforced", "True").await?;
    shop::store(&world, 150, 0).await?;
    let told = eventually("the candidate has something to tell", || async {
        assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada", "the policy in force is patient");
        let user = resource::api(&world).get("user").await?;
        let told = user.status.and_then(|status| status.summary?.shadow);
        told.ok_or_else(|| anyhow::anyhow!("nothing yet"))
    })
    .await?;
    assert!(told.starts_with("find_user would have") && told.contains("timed out"), "{told}");
    Ok(())
}
