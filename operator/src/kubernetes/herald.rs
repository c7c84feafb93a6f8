//! Events, one after the other and beside the work: on a bad night, when everybody has something to tell, they neither
//! hold up a pass nor overrun the API server. What they tell is in conditions and logs as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::{MANAGER, told};
use crate::gate::Gate;

/// How many may wait to be published; later ones are dropped.
const WAITING: usize = 2000;

/// Publishes Events.
#[derive(Clone, Debug)]
pub struct Herald {
    tell: mpsc::Sender<(Event, ObjectReference)>,
    /// How many were dropped since it was last said.
    dropped: Arc<AtomicU64>,
}

impl Herald {
    /// Publishes as `reporter` until the last of its clones is gone.
    pub fn start(client: Client, reporter: Reporter) -> Self {
        let (tell, mut told_of) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        tokio::spawn(async move {
            let (recorder, gate) = (Recorder::new(client, reporter), Gate::restless("the Kubernetes API"));
            while let Some((event, about)) = told_of.recv().await {
                let publish = async { recorder.publish(&event, &about).await.map_err(|error| told(&error)) };
                if let Err(error) = gate.run(Box::pin(publish)).await {
                    tracing::warn!(of = about.name, reason = event.reason, %error, "an Event could not be published");
                }
                // Once for all of a bad night.
                if told_of.is_empty()
                    && let dropped @ 1.. = lost.swap(0, Relaxed)
                {
                    tracing::warn!(
                        dropped,
                        "too many Events at once; what they told is in conditions and logs"
                    );
                }
            }
        });
        Self { tell, dropped }
    }

    /// Has an Event published soon; it does not wait, and too many at once are dropped.
    pub fn tell(&self, event: Event, about: ObjectReference) {
        if let Err(TrySendError::Full((event, about))) = self.tell.try_send((event, about)) {
            self.dropped.fetch_add(1, Relaxed);
            tracing::debug!(
                of = about.name,
                reason = event.reason,
                "too many Events at once: one is dropped"
            );
        }
    }
}

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
    let herald = Herald::start(client, reporter);
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
        herald.tell(event, about.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Json;
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn too_many_at_once_are_dropped_and_hold_up_nobody() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (told, mut seen) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let app = axum::Router::new().fallback(async move |Json(event): Json<Value>| {
            told.send(event["regarding"]["name"].clone()).unwrap();
            Json(event)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = Client::try_from(kube::Config::new(url)).unwrap();
        let herald = Herald::start(client, Reporter { controller: MANAGER.into(), instance: None });
        let tell = |of: String| {
            let about = ObjectReference { name: Some(of), ..ObjectReference::default() };
            let [reason, action] = ["ConsulUnavailable", "Consul"].map(str::to_owned);
            herald.tell(
                Event { type_: EventType::Warning, reason, note: None, action, secondary: None },
                about,
            );
        };
        // Nobody else runs before the first await.
        (0..WAITING + 10).for_each(|n| tell(format!("user-{n}")));
        assert_eq!(herald.dropped.load(Relaxed), 10);
        for n in 0..WAITING {
            assert_eq!(seen.recv().await.unwrap(), format!("user-{n}"));
        }
        tell("later".into());
        assert_eq!(seen.recv().await.unwrap(), "later");
        let told = async {
            while herald.dropped.load(Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("that some were dropped is told");
    }

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
