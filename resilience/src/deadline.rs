//! The deadline of the call or request that the current code works for.
//!
//! It is bound to the task: known wherever the future of a [`Command`](crate::Command)'s call or of
//! a served request is polled, and unknown in what that future spawns.

use std::cell::Cell;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::{Now, exact};

thread_local! {
    /// Set while a future is polled that has one: a plain cell, as it is set on the path of every call.
    static DUE: Cell<Due> = const { Cell::new(Due::NEVER) };
}

/// When work must have ended: the earlier of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) at: Now,
    /// So many nanoseconds after whenever that is asked. A call that has not waited yet has begun just now,
    /// but nobody has read the clock: whoever asks does.
    pub(crate) after: u64,
}

impl Due {
    const NEVER: Self = Self::at(Now::NEVER);

    #[inline]
    pub(crate) const fn at(at: Now) -> Self {
        Self { at, after: u64::MAX }
    }

    fn resolved(self) -> Now {
        if self.after == u64::MAX { self.at } else { self.at.min(exact().plus(self.after)) }
    }
}

/// The header that carries a deadline between gRPC peers.
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long the work may still take; zero once the deadline has passed. None where there is no
/// deadline.
pub fn remaining() -> Option<Duration> {
    let due = current();
    (due != Now::NEVER).then(|| due.since(exact()))
}

/// Writes what remains as `grpc-timeout` for an outbound request, so that the callee gives up when we
/// do. An earlier one that is there already stays; without a deadline nothing changes.
///
/// What remains is rounded up to what the header can say (a microsecond up to 100 s, else a
/// millisecond, above a day a second): a client that follows the header itself, as tonic does, then
/// never gives up before our own deadline, and its error is told apart from one of the callee.
///
/// With tonic: `fusebox::deadline::set_grpc_timeout(request.metadata_mut().as_mut())`.
pub fn set_grpc_timeout(headers: &mut HeaderMap) {
    if let Some(remaining) = remaining() {
        shorten_grpc_timeout(headers, remaining);
    }
}

/// Writes `timeout` as `grpc-timeout`, unless an earlier one is there.
pub(crate) fn shorten_grpc_timeout(headers: &mut HeaderMap, timeout: Duration) {
    if grpc_timeout(headers).is_some_and(|there| there <= timeout) {
        return;
    }
    // At most eight digits. A value of zero is no valid timeout, so the last is one microsecond.
    let micros = timeout.as_nanos().div_ceil(1000).max(1);
    let text = match micros {
        ..100_000_000 => format!("{micros}u"),
        100_000_000..=99_999_999_000 => format!("{}m", micros.div_ceil(1000)),
        _ => format!("{}S", micros.div_ceil(1_000_000).min(99_999_999)),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(&GRPC_TIMEOUT, value);
    }
}

/// The timeout a gRPC caller asks for. None if there is none or it is malformed.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The deadline of the current code.
#[inline]
pub(crate) fn current() -> Now {
    let due = DUE.get();
    if due.after == u64::MAX { due.at } else { due.resolved() }
}

/// Runs `f` under a deadline, or under the one that holds if that is earlier.
#[inline]
pub(crate) fn within<R>(due: Due, f: impl FnOnce() -> R) -> R {
    let holds = DUE.get();
    // Also where f panics: another task may be polled on this thread next.
    let _restore = Restore(holds);
    DUE.set(Due { at: due.at.min(holds.at), after: due.after.min(holds.after) });
    f()
}

struct Restore(Due);

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        DUE.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_TIMEOUT.clone(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn reads_every_unit_and_refuses_what_grpc_refuses() {
        for (text, timeout) in [("2H", 7200), ("3M", 180), ("4S", 4)] {
            assert_eq!(grpc_timeout(&headers(text)), Some(Duration::from_secs(timeout)), "{text}");
        }
        assert_eq!(grpc_timeout(&headers("5m")), Some(Duration::from_millis(5)));
        assert_eq!(grpc_timeout(&headers("99999999u")), Some(Duration::from_micros(99_999_999)));
        assert_eq!(grpc_timeout(&headers("7n")), Some(Duration::from_nanos(7)));
        for text in ["", "S", "1", "-1S", "1.5S", "123456789S", "1x", "+1S"] {
            assert_eq!(grpc_timeout(&headers(text)), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_remainder_is_written_and_an_earlier_one_stays() {
        let mut outbound = HeaderMap::new();
        set_grpc_timeout(&mut outbound);
        assert!(outbound.is_empty(), "no deadline, no header");
        let deadline = exact().plus(250_000_000);
        within(Due::at(deadline), || set_grpc_timeout(&mut outbound));
        assert_eq!(outbound[&GRPC_TIMEOUT], "250000u");
        let mut earlier = headers("1m");
        within(Due::at(deadline), || set_grpc_timeout(&mut earlier));
        assert_eq!(earlier[&GRPC_TIMEOUT], "1m");
        let hour = exact().plus(3_600_000_000_000);
        let mut later = headers("2H");
        within(Due::at(hour), || set_grpc_timeout(&mut later));
        assert_eq!(later[&GRPC_TIMEOUT], "3600000m");
        for (nanos, text) in [
            (1_000_001, "1001u"),
            (100_000_000_001, "100001m"),
            (99_999_999_000_001, "100000S"),
            (100_000_000_000_001, "100001S"),
        ] {
            let mut odd = HeaderMap::new();
            within(Due::at(exact().plus(nanos)), || set_grpc_timeout(&mut odd));
            assert_eq!(odd[&GRPC_TIMEOUT], text, "a client that follows it is never ahead of us");
        }
        assert_eq!(remaining(), None, "the deadline ends with its scope");
        let begun = Due { at: Now::NEVER, after: 7_000_000 };
        tokio::time::advance(Duration::from_millis(3)).await;
        assert_eq!(within(begun, remaining), Some(Duration::from_millis(7)), "it begins when it is asked");
        let sooner = within(Due::at(exact().plus(5_000_000)), || within(begun, remaining));
        assert_eq!(sooner, Some(Duration::from_millis(5)));
    }
}
