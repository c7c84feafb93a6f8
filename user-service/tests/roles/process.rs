//! The binary: its environment, its signals, its exit.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::channel;

fn command(role: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-service"));
    command.arg(role).env_clear().kill_on_drop(true).stdout(Stdio::piped());
    command.env("LISTEN", "127.0.0.1:0").env("ADMIN_LISTEN", "127.0.0.1:0");
    command
}

fn start(mut command: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command.spawn().unwrap();
    let log = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, log)
}

/// The rest of the first line of the log that has `text`.
async fn logged(log: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    loop {
        let line = log.next_line().await.unwrap().expect(text);
        if let Some((_, rest)) = line.split_once(text) {
            return rest.trim().to_owned();
        }
    }
}

#[tokio::test]
async fn a_dead_etcd_keeps_no_service_down_and_sigterm_ends_it_in_order() {
    let mut serve = command("serve");
    serve.env("FUSEBOX_SERVICE", "shop/user").env("FUSEBOX_CLUSTER", "test");
    serve.env("POD_NAME", "user-0").env("POD_UID", "0000").env("POD_IP", "127.0.0.1");
    serve.env("FUSEBOX_ETCD", "http://127.0.0.1:1").env("POLICY_WAIT", "1").env("DRAIN", "1");
    let (mut child, mut log) = start(serve);
    let address = logged(&mut log, "listening address=").await.parse().unwrap();
    logged(&mut log, "no policy arrived").await;
    let request = HealthCheckRequest { service: "user.v1.UserService".to_owned() };
    let mut statuses = HealthClient::new(channel(address)).watch(request).await.unwrap().into_inner();
    while statuses.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    while statuses.message().await.unwrap().unwrap().status() != ServingStatus::NotServing {}
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_missing_variable_is_named_with_its_fix() {
    let output = command("serve").stderr(Stdio::piped()).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("FUSEBOX_SERVICE"), "{told}");
}

#[tokio::test]
async fn help_tells_every_role() {
    let output = Command::new(env!("CARGO_BIN_EXE_user-service")).arg("--help").output().await.unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    for word in ["serve", "caller", "store", "FUSEBOX_SERVICE", "--drain"] {
        assert!(help.contains(word), "{word} in {help}");
    }
}
