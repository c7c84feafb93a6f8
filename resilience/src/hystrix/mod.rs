//! The stream that the Hystrix dashboard and Turbine read.
//!
//! Nothing here is on the path of a call: each stream reads the counters of the commands once a second and
//! takes the differences itself.

mod event;
mod history;
mod sample;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock::exact;
use crate::fusebox::Shared;
use history::History;

/// How often there are events: as often as the dashboard draws.
const PERIOD: Duration = Duration::from_secs(1);

/// What there is to say while there is no command, so that the reader sees the connection is alive
/// (Hystrix, `HystrixMetricsStreamServlet.java`).
const PING: &str = "ping: \n\n";

/// The events of the Hystrix stream as the body of a response, without an end; made by
/// [`Fusebox::hystrix_stream`](crate::Fusebox::hystrix_stream).
///
/// # Guarantees
/// - The first events come at once, then each second those of that moment: one `HystrixCommand` and one
///   `HystrixThreadPool` for each command that was ever asked for.
/// - A slow reader misses events; it never gets old ones. Nothing is buffered but what was taken last.
/// - There is no task: while nobody polls it nothing happens, and to drop it is the end.
/// - It only reads: no breaker changes by being watched.
///
/// # Assumptions
/// - It is polled on a tokio runtime with time enabled.
///
/// # Caveats
/// - It knows nothing of before it was made: counts start from zero and are complete after ten seconds,
///   latencies after a minute. A reader that stops for longer starts anew.
/// - It has no end of its own, and a server that waits for its responses when it shuts down would wait for
///   ever: see [`until`](Self::until).
pub struct HystrixStream {
    shared: Arc<Shared>,
    history: History,
    /// Made when first polled: there must be a runtime then, not before.
    ticks: Option<Interval>,
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ended: bool,
}

impl HystrixStream {
    /// The same, ending when `end` does: when the server begins to shut down.
    ///
    /// ```
    /// # fn f(fusebox: &fusebox::Fusebox, closing: impl Future<Output = ()> + Send + 'static) {
    /// let response = fusebox.hystrix_stream().map(|stream| stream.until(closing));
    /// # }
    /// ```
    #[must_use]
    pub fn until(mut self, end: impl Future<Output = ()> + Send + 'static) -> Self {
        self.end = Some(Box::pin(end));
        self
    }

    fn events(&mut self) -> Bytes {
        let now = exact();
        let at = self.shared.clock.timestamp(now.tick()).as_millisecond();
        let samples = sample::all(&self.shared);
        if samples.is_empty() {
            return Bytes::from_static(PING.as_bytes());
        }
        self.history.keep(now, &samples);
        let mut text = String::new();
        for sample in &samples {
            let window = self.history.window(sample);
            for event in [event::command(sample, &window, at), event::thread_pool(sample, &window, at)] {
                text.extend(["data: ", &event.to_string(), "\n\n"]);
            }
        }
        text.into()
    }
}

/// The stream as the answer to a request.
pub(crate) fn response(shared: Arc<Shared>) -> Response<HystrixStream> {
    let stream = HystrixStream { shared, history: History::default(), ticks: None, end: None, ended: false };
    let mut response = Response::new(stream);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream;charset=UTF-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    response
}

impl Body for HystrixStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.ended = this.ended || this.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if this.ended {
            return Poll::Ready(None);
        }
        let ticks = this.ticks.get_or_insert_with(|| {
            let mut ticks = interval(PERIOD);
            // Whoever reads too slowly gets the next ones in time, not all that were missed.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks
        });
        ready!(ticks.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(this.events()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl fmt::Debug for HystrixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HystrixStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}
