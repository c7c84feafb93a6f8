//! Events about the operator itself, on its pod.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::watch;

use super::{MANAGER, told};
use crate::gate::Gate;

/// Tells of each change of `late`: whether a dead man in Consul waits too long for its renewal. Ends when nobody is
/// left to change it.
pub async fn tell_of_dead_man(client: Client, pod: String, mut late: watch::Receiver<bool>) {
    let about = ObjectReference {
        api_version: Some(Pod::api_version(&()).into_owned()),
        kind: Some(Pod::kind(&()).into_owned()),
        namespace: Some(client.default_namespace().to_owned()),
        name: Some(pod.clone()),
        ..ObjectReference::default()
    };
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(pod) };
    let (recorder, gate) = (Recorder::new(client, reporter), Gate::restless("the Kubernetes API"));
    while late.changed().await.is_ok() {
        let (type_, reason, note) = if *late.borrow_and_update() {
            let note = "Consul renewed a dead man of this cluster no more for a quarter of its TTL: after one to two \
                        TTLs it takes the entries for failing. Is Consul reachable, and the token's right to sessions \
                        there?";
            (EventType::Warning, "DeadManLate", note)
        } else {
            (EventType::Normal, "DeadManRenewed", "Consul renews every dead man of this cluster again")
        };
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note.into()),
            action: "Renew".into(),
            secondary: None,
        };
        let publish = async { recorder.publish(&event, &about).await.map_err(|error| told(&error)) };
        if let Err(error) = gate.run(publish).await {
            tracing::warn!(%error, "an Event about the dead man could not be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn both_changes_are_events_of_the_pod() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (told, mut seen) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let app = axum::Router::new().fallback(async move |uri: http::Uri, Json(event): Json<Value>| {
            told.send((uri.path().to_owned(), event.clone())).unwrap();
            Json(event)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut config = kube::Config::new(url);
        config.default_namespace = "fusebox".into();
        let (late, hears) = watch::channel(false);
        let client = Client::try_from(config).unwrap();
        tokio::spawn(tell_of_dead_man(client, "operator-1".into(), hears));
        for (is_late, type_, reason) in
            [(true, "Warning", "DeadManLate"), (false, "Normal", "DeadManRenewed")]
        {
            late.send_replace(is_late);
            let (path, event) = seen.recv().await.unwrap();
            assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/fusebox/events");
            assert_eq!((&event["type"], &event["reason"]), (&type_.into(), &reason.into()));
            let about = &event["regarding"];
            assert_eq!((&about["kind"], &about["name"]), (&"Pod".into(), &"operator-1".into()));
        }
    }
}
