//! Waiting for what must come true.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// Liveness deadlines are about ten times what is seen on two cores: they tell "never" from "soon", they
/// assert no speed.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Tries `check` until it succeeds; the error tells what was waited for and what was seen last.
pub async fn eventually<T, E, F>(what: &str, mut check: impl FnMut() -> F) -> Result<T>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= end => {
                bail!("never came true within {PATIENCE:?}: {what}; last seen: {seen:#}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
