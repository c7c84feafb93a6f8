//! How slow and how failing the store is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

/// The longest delay, in milliseconds.
const LONGEST: u32 = 60_000;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Every answer waits so long.
    delay_ms: u32,
    /// So many of a hundred requests fail, evenly spread.
    fail_percent: u32,
}

impl Settings {
    /// Reads settings; what is not named is 0.
    pub(super) fn from_json(json: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(json)
            .map_err(|error| format!(r#"write {{"delayMs": 0, "failPercent": 0}}: {error}"#))?;
        match settings {
            Self { delay_ms, .. } if delay_ms > LONGEST => Err(format!("delayMs is at most {LONGEST}")),
            Self { fail_percent, .. } if fail_percent > 100 => Err("failPercent is 0 to 100".to_owned()),
            _ => Ok(settings),
        }
    }

    /// Whether the request numbered `n` fails: spread evenly and by number, so that a run can be repeated.
    fn fails(self, n: u64) -> bool {
        let percent = u64::from(self.fail_percent);
        (n + 1) * percent / 100 > n * percent / 100
    }
}

/// The behaviour in force.
#[derive(Debug, Default)]
pub(super) struct Behaviour(ArcSwap<Since>);

/// Settings, and how many requests came since they were made.
#[derive(Debug, Default)]
struct Since {
    settings: Settings,
    requests: AtomicU64,
}

/// The request is to fail.
#[derive(Debug)]
pub(super) struct Failing;

impl Behaviour {
    pub(super) fn settings(&self) -> Settings {
        self.0.load().settings
    }

    /// Puts new settings in force for requests from now on.
    pub(super) fn set(&self, settings: Settings) {
        self.0.store(Since { settings, ..Since::default() }.into());
    }

    /// Waits and fails as it should.
    pub(super) async fn act(&self) -> Result<(), Failing> {
        let (settings, n) = {
            let now = self.0.load();
            (now.settings, now.requests.fetch_add(1, Ordering::Relaxed))
        };
        if settings.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(settings.delay_ms.into())).await;
        }
        if settings.fails(n) { Err(Failing) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_so_many_of_a_hundred_fail_evenly_spread() {
        for percent in [0, 1, 25, 50, 99, 100] {
            let settings = Settings { fail_percent: percent, ..Settings::default() };
            let failing = (0..100).filter(|n| settings.fails(*n)).count();
            assert_eq!(failing, usize::try_from(percent).unwrap());
        }
        let quarter = Settings { fail_percent: 25, ..Settings::default() };
        assert_eq!((0..8).filter(|n| quarter.fails(*n)).collect::<Vec<_>>(), [3, 7]);
    }

    #[test]
    fn wrong_settings_are_told() {
        for (json, told) in [
            (r#"{"delayMs": 60001}"#, "at most 60000"),
            (r#"{"failPercent": 101}"#, "0 to 100"),
            (r#"{"failPercent": -1}"#, "invalid value"),
            (r#"{"delay": 1}"#, "unknown field `delay`"),
            ("3", r#"write {"delayMs""#),
        ] {
            let error = Settings::from_json(json.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{json}: {error}");
        }
        assert_eq!(
            Settings::from_json(br#"{"delayMs":3000}"#),
            Ok(Settings { delay_ms: 3000, fail_percent: 0 })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_holds_from_the_next_request() {
        let behaviour = Behaviour::default();
        behaviour.set(Settings { delay_ms: 3000, fail_percent: 100 });
        let begun = tokio::time::Instant::now();
        assert!(behaviour.act().await.is_err());
        assert_eq!(tokio::time::Instant::now() - begun, Duration::from_secs(3));
    }
}
