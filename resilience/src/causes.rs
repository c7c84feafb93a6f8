//! An error with its causes.

use std::error::Error;

/// An error and what caused it, the outermost first.
pub(crate) fn of<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// In words: hyper's own say only that it could not connect.
pub(crate) fn text(error: &(dyn Error + 'static)) -> String {
    of(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
