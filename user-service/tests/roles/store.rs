//! The user store.

use axum::http::{Method, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use user_service::cli::StoreArgs;
use user_service::store::UserStore;

use crate::support::{ANYWHERE, Running, get, process, request};

async fn store(admin: bool) -> Running {
    let args = StoreArgs { listen: ANYWHERE, admin, admin_listen: ANYWHERE };
    let store = UserStore::bind(&args).await.unwrap();
    let (public, admin) = store.addresses().unwrap();
    let (stop, stopped) = mpsc::channel(2);
    let addresses = [public, admin.unwrap_or(ANYWHERE)];
    Running::new(addresses, stop, tokio::spawn(store.run(stopped, process())))
}

#[tokio::test]
async fn knows_everyone_but_nobody() {
    let store = store(false).await;
    let (status, _, body) = get(&store.url("/users/Ada%20Lovelace")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "name": "Ada Lovelace" })));
    assert_eq!(get(&store.url("/users/Nobody7")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&store.url("/users/-")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(store.admin.port(), 0, "the admin endpoint is off unless enabled");
}

#[tokio::test]
async fn fails_as_it_is_told() {
    let store = store(true).await;
    let behaviour = format!("http://{}/admin/behaviour", store.admin);
    let (status, _, body) = request(Method::PUT, &behaviour, r#"{"failPercent":50}"#).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "delayMs": 0, "failPercent": 50 })));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(&store.url("/users/Ada")).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 503, 200, 503]);
    let (status, _, body) = request(Method::PUT, &behaviour, r#"{"failPercent":500}"#).await;
    assert_eq!((status, body), (StatusCode::BAD_REQUEST, json!({ "error": "failPercent is 0 to 100" })));
    assert_eq!(get(&behaviour).await.2["failPercent"], 50, "what was wrong changed nothing");
}
