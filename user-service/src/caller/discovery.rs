//! Keeps a pool at what Consul knows. The last good list stays when Consul does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::consul::{Consul, Index};
use super::pool::Pool;

/// The least time between two answers, however busy Consul is.
const PACE: Duration = Duration::from_millis(20);

/// Follows `service` for ever.
pub(super) async fn follow(consul: Consul, service: String, pool: Arc<Pool>) {
    let (mut index, mut known) = (Index::default(), None::<Vec<SocketAddr>>);
    let mut delays = backoff();
    loop {
        match consul.passing(&service, index).await {
            Ok((found, next)) => {
                (index, delays) = (next, backoff());
                if known.as_ref() != Some(&found) {
                    tracing::info!(service, instances = ?found, "Consul's list changed");
                    pool.replace(&found);
                    known = Some(found);
                }
                tokio::time::sleep(PACE).await;
            }
            Err(error) => {
                let delay = delays.next().unwrap_or(LONGEST);
                tracing::warn!(service, %error, ?delay, "Consul did not answer: the last list stays");
                index = Index::default();
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// The longest pause after errors.
const LONGEST: Duration = Duration::from_secs(10);

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::{StatusCode, Uri};
    use axum::response::{IntoResponse as _, Response};
    use tokio::net::TcpListener;
    use tokio::sync::{Mutex, mpsc, oneshot};

    use super::*;

    type Asked = mpsc::Sender<(String, oneshot::Sender<Response>)>;

    /// A Consul whose every answer the test gives.
    async fn consul() -> (Consul, mpsc::Receiver<(String, oneshot::Sender<Response>)>) {
        async fn ask(State(asked): State<Asked>, uri: Uri) -> Response {
            let (answer, answered) = oneshot::channel();
            asked.send((uri.to_string(), answer)).await.unwrap();
            answered.await.unwrap()
        }
        let (asked, asks) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, Router::new().fallback(ask).with_state(asked)).into_future());
        (Consul::new(&address.to_string(), None).unwrap(), asks)
    }

    fn list(index: &str, ports: &[u16]) -> Response {
        let entry = |port| format!(r#"{{"Node":{{"Address":"127.0.0.1"}},"Service":{{"Port":{port}}}}}"#);
        let entries = ports.iter().map(entry).collect::<Vec<_>>().join(",");
        ([("x-consul-index", index.to_owned())], format!("[{entries}]")).into_response()
    }

    #[tokio::test]
    async fn follows_the_index_and_keeps_the_last_list_through_errors() {
        let (consul, asks) = consul().await;
        let (pool, asks) = (Arc::new(Pool::default()), Mutex::new(asks));
        let following = tokio::spawn(follow(consul, "user.service".to_owned(), Arc::clone(&pool)));
        // Each question follows from the answer before it, and is asked once that answer is in force.
        let ask = async |index: &str| {
            let (uri, answer) = asks.lock().await.recv().await.unwrap();
            let expected = format!("/v1/health/service/user%2Eservice?passing&index={index}&wait=55s");
            assert_eq!(uri, expected);
            answer
        };
        let ports = || pool.addresses().iter().map(SocketAddr::port).collect::<Vec<_>>();

        ask("0").await.send(list("7", &[1, 2])).unwrap();
        let next = ask("7").await;
        assert_eq!(ports(), [1, 2]);
        next.send(list("9", &[2])).unwrap();
        let next = ask("9").await;
        assert_eq!(ports(), [2]);
        next.send((StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response()).unwrap();
        let next = ask("0").await;
        assert_eq!(ports(), [2], "the last list stays");
        next.send(list("9", &[])).unwrap();
        let next = ask("9").await;
        assert_eq!(ports(), [0; 0]);
        next.send(list("3", &[5])).unwrap();
        let next = ask("0").await;
        assert_eq!(ports(), [5], "the index went backwards");
        drop(next);
        following.abort();
    }
}
