//! Bad input gets a clear message at the earliest place and disturbs nobody.

use anyhow::Result;
use fusebox_e2e::{consul, etcd, gateway, resource, shop};
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn f_the_api_server_refuses_with_a_clear_message() -> Result<()> {
    let world = shop::opened().await?;
    for (spec, message) in [
        ("inbound: { timeout: 500 }", "must be of type string"),
        ("inbound: { timeout: 1.5s }", "should match"),
        ("inbound: { timeout: 0s }", "must be between 1ms and 1h"),
        ("inbound: { timeout: 2h }", "must be between 1ms and 1h"),
        ("inbound: { maxConcurrentRequests: 0 }", "should be greater than or equal to 1"),
        ("inbound: { methods: [{ match: {} }] }", "set exactly one of grpc and http"),
        ("inbound: { methods: [{ match: { http: { pathPrefix: users } } }] }", "should match"),
        (
            "outbound: { circuitBreaker: { errorPercentThreshold: 101 } }",
            "should be less than or equal to 100",
        ),
        ("outbound: { circuitBreaker: { mode: Open } }", "Unsupported value"),
        ("outbound: { commands: [{ name: a }, { name: a }] }", "Duplicate value"),
        ("outbound: { circuitBraker: {} }", "unknown field"),
        ("consul: { serviceName: 'a b' }", "should match"),
        ("consul: { meta: { fusebox-owner: me } }", "does not begin with fusebox-"),
        ("consul: { tags: [v1, t], goMicro: true }", "with goMicro no tag may be exactly t or e"),
        ("gateway: { routes: [{ host: 'a`) || Host(`b' }] }", "should match"),
        ("gateway: { routes: [] }", "should have at least 1 items"),
        ("gateway: { routes: [{ host: a.b }], tls: { secretName: s } }", "tls needs entryPoints.tls"),
        ("config: { etcdKeys: { /fusebox/v1/demo/epoch: x } }", "does not begin with /fusebox/"),
        ("config: { document: text }", "must be of type object"),
    ] {
        let yaml = format!(
            "apiVersion: fusebox.dev/v1alpha1\nkind: ResilientService\nmetadata: {{ name: bad }}\n\
             spec:\n  service: {{ name: user-store, port: http }}\n  {spec}\n"
        );
        let error = world.apply(&yaml).await.expect_err(spec).to_string();
        assert!(error.contains(message), "{spec}: {error}");
    }
    assert!(resource::api(&world).get_opt("bad").await?.is_none());
    Ok(())
}

/// One bad resource of each kind, all at once, beside the good ones.
#[tokio::test]
async fn f_a_bad_resource_is_not_accepted_and_disturbs_nobody() -> Result<()> {
    let world = shop::opened().await?;
    let before = resource::api(&world).get("user").await?;
    let bad = [
        // (name, spec, condition, reason, words of the message)
        (
            "contradictory",
            "service: { name: user-store, port: http }\n  \
             outbound: { timeout: 30s, circuitBreaker: { rollingWindow: 10s } }",
            ("Accepted", "Invalid", "shorten the timeout or lengthen the window"),
        ),
        ("second", "service: { name: user-service, port: grpc }", ("Accepted", "Conflict", "user-service")),
        (
            "keys",
            "service: { name: user-store, port: http }\n  config: { etcdKeys: { somebody.elses: x } }",
            ("Accepted", "KeyNotAllowed", "allowedKeyPrefixes"),
        ),
        (
            "missing",
            "service: { name: no-such-service }\n  consul: { serviceName: missing.service }",
            ("Registered", "ServiceNotFound", "no-such-service"),
        ),
        (
            "port",
            "service: { name: user-caller, port: nope }\n  consul: { serviceName: port.service }",
            ("Registered", "PortNotFound", "nope"),
        ),
    ];
    // Two of them name user-store and one names the caller's Service: only the wrong part may be told, so
    // each is alone with its Service while it is judged.
    for (name, spec, (type_, reason, words)) in bad {
        if name == "port" {
            resource::api(&world).delete("caller", &DeleteParams::default()).await?;
        }
        world
            .apply(&format!(
                "apiVersion: fusebox.dev/v1alpha1\nkind: ResilientService\nmetadata: {{ name: {name} }}\n\
                 spec:\n  {spec}\n"
            ))
            .await?;
        let judged = resource::until_reason(&world, name, type_, "False", Some(reason)).await?;
        let condition = resource::condition(&judged, type_)?;
        assert!(condition.message.contains(words), "{name}: {}", condition.message);
        assert_eq!(resource::condition(&judged, "Ready")?.status, "False", "{name}");
        let about = format!("involvedObject.kind=ResilientService,involvedObject.name={name}");
        let events = world.kubectl(&["get", "events", "--field-selector", &about]).await?;
        assert!(events.contains(reason), "{name}: no Event tells {reason}: {events}");
        if type_ == "Accepted" {
            assert_eq!(
                etcd::get(&world, &etcd::keys().policy(&etcd::ident(name))).await?,
                None,
                "{name} was published"
            );
        }
        resource::api(&world).delete(name, &DeleteParams::default()).await?;
    }

    assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada");
    assert_eq!(consul::passing(&world, "user.service").await?.len(), 2);
    let after = resource::api(&world).get("user").await?;
    let conditions = |resource: &fusebox_policy::v1alpha1::ResilientService| {
        resource.status.clone().map(|status| status.conditions).unwrap_or_default()
    };
    assert_eq!(conditions(&before), conditions(&after), "a neighbour was disturbed");
    Ok(())
}

/// An edit that is refused takes nothing away of what runs.
#[tokio::test]
async fn f_a_refused_edit_leaves_what_runs() -> Result<()> {
    let world = shop::opened().await?;
    world
        .apply(
            "apiVersion: fusebox.dev/v1alpha1\nkind: ResilientService\nmetadata: { name: holder }\n\
             spec: { service: { name: user-store, port: http }, consul: { serviceName: held.service }, \
             gateway: { routes: [{ host: held.example.com }] } }\n",
        )
        .await?;
    resource::until(&world, "holder", "Ready", "True").await?;

    let registered = consul::instances(&world, "user.service").await?;
    let user = resource::api(&world).get("user").await?;
    let mut gateway = serde_json::to_value(&user.spec.gateway)?;
    let routes = gateway["routes"].as_array_mut();
    routes
        .ok_or_else(|| anyhow::anyhow!("the example has routes"))?
        .push(json!({ "host": "held.example.com" }));
    for edit in [json!({ "gateway": gateway }), json!({ "consul": { "serviceName": "held.service" } })] {
        resource::patch(&world, "user", edit.clone()).await?;
        let refused = resource::until_reason(&world, "user", "Accepted", "False", Some("Conflict")).await?;
        let message = &resource::condition(&refused, "Accepted")?.message;
        assert!(message.contains("holder"), "{message}");
        for _ in 0..10 {
            assert_eq!(gateway::greet(&world, "Ada").await?.msg, "Hello, Ada", "{edit}");
        }
        assert_eq!(consul::instances(&world, "user.service").await?, registered, "{edit}");
        shop::restored(&world, "examples/user.yaml").await?;
        resource::until(&world, "user", "Ready", "True").await?;
    }
    assert_eq!(consul::passing(&world, "held.service").await?.len(), 1, "the holder was not disturbed");
    resource::api(&world).delete("holder", &DeleteParams::default()).await?;
    Ok(())
}
