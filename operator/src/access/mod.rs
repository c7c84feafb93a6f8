//! `fusebox-operator etcd-access`: makes etcd's users and roles, and keeps them.
//!
//! # Guarantees
//! - What each may do is [`fusebox_policy::access`], nothing more: a right or role beside that is taken away.
//! - A second run changes nothing. Users and roles of others are not touched.
//! - Passwords come from files and go to etcd, nowhere else.

mod cli;
mod make;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{Client, Error};
use fusebox::etcd::{EtcdError, connect};
use tokio::time::sleep;

pub use cli::AccessConfig;
use make::Maker;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::{admin, app};

/// How often etcd is looked at with `--watch`, and after a failure.
const ROUND: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);
/// After how many rounds every password is tried anew: a minute's, as each costs etcd a login.
const FORGET: u32 = 12;

const MADE: &str = "etcd's users and roles";

/// Makes them once, or until SIGTERM.
pub async fn run(config: AccessConfig) -> anyhow::Result<()> {
    app::init_logs(&config.log)?;
    config.etcd.check()?;
    config.wanted().context("what is wanted")?;
    if !config.watch {
        return Box::pin(round(&config, &mut Maker::default())).await;
    }
    let mut stop = app::stop_signal("what is made in etcd stays")?;
    let readiness = Arc::new(Readiness::waiting_for([MADE]));
    admin::start(config.listen, readiness.clone(), None, Arc::new(Metrics::default())).await?;
    tokio::select! {
        () = keep(&config, &readiness) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

async fn keep(config: &AccessConfig, readiness: &Readiness) {
    let mut maker = Maker::default();
    let mut rounds = 0_u32;
    loop {
        rounds = rounds.wrapping_add(1);
        // Passwords that were right may be so no more, in an etcd that was restored or changed by hand.
        if rounds.is_multiple_of(FORGET) {
            maker = Maker::default();
        }
        let wait = match Box::pin(round(config, &mut maker)).await {
            Ok(()) => {
                readiness.reached(MADE);
                ROUND
            }
            Err(error) => {
                tracing::warn!("etcd's users and roles: {error:#}");
                AGAIN
            }
        };
        sleep(wait).await;
    }
}

/// Looks once, and makes what is missing. Files are read anew each time.
async fn round(config: &AccessConfig, maker: &mut Maker) -> anyhow::Result<()> {
    let wanted = config.wanted()?;
    let (mut client, open) = admin_of(config).await?;
    maker.make(&mut client, &wanted, open).await?;
    if !open {
        return Ok(());
    }
    match config.root()? {
        Some((root, password)) if config.enable_auth => {
            maker.lock(&mut client, &root, &password).await.context("turning authentication on")
        }
        _ => {
            tracing::warn!(
                "authentication is off in etcd, so anyone may do anything: --enable-auth turns it on"
            );
            Ok(())
        }
    }
}

/// A client that may do all, and whether that is because authentication is off.
async fn admin_of(config: &AccessConfig) -> Result<(Client, bool), EtcdError> {
    let login = Box::pin(connect(&config.etcd.config())).await;
    if config.etcd.etcd_user.is_some() && !login.as_ref().is_err_and(is_off) {
        return Ok((login?, false));
    }
    let client = Box::pin(connect(&config.etcd.anonymous())).await?;
    // Whoever that is: the answer tells a wrong password from nothing to log in to.
    let nobody = client.auth_client().authenticate("nobody".to_owned(), "?".to_owned()).await;
    let open = nobody.is_err_and(|error| is_off(&EtcdError::Etcd(error)));
    Ok((client, open))
}

/// Is this etcd's answer to a login while authentication is off?
fn is_off(error: &EtcdError) -> bool {
    matches!(error, EtcdError::Etcd(Error::GRpcStatus(status))
        if status.message().ends_with("authentication is not enabled"))
}
