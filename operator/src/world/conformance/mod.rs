//! The worlds in memory beside the servers they stand for: one script of calls of a port, played on both, has the
//! same answers.
//!
//! What a server answered is kept in `recordings/`, so that a world is held to it where no server can run, and a
//! server of another version to what was recorded. `FUSEBOX_RECORD=1` writes them anew. What a server makes up
//! (indices, revisions, UIDs) is told by its order of appearance.

mod catalog;
mod kubernetes;
mod recording;
mod store;

use recording::Recording;

use crate::ports::Fence;

/// What a read finds; a server that is slow is asked again.
async fn answered<T, E: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..20 {
        if let Ok(answer) = ask().await {
            return answer;
        }
    }
    ask().await.unwrap()
}

/// Which place of the epoch key a step means.
#[derive(Clone, Copy, Debug)]
enum At {
    /// The key is absent.
    Absent,
    /// As it was read last.
    Newest,
    /// As it was read so many places before that.
    Before(usize),
    /// Where it never was.
    Never,
}

/// The places of a key in the order in which they were seen.
#[derive(Debug, Default)]
struct Places {
    all: Vec<Fence>,
    /// Where those of the server as it is now begin: one that was wiped may count anew.
    since: usize,
}

impl Places {
    /// A name for it that does not depend on the server.
    fn name(&mut self, at: Fence) -> String {
        let known = self.all[self.since..].iter().position(|seen| *seen == at);
        let place = known.map_or(self.all.len(), |place| self.since + place);
        if known.is_none() {
            self.all.push(at);
        }
        format!("#{place}")
    }

    /// The server was wiped.
    fn wiped(&mut self) {
        self.since = self.all.len();
    }

    fn get(&self, at: At) -> Option<Fence> {
        let back = |n: usize| self.all.iter().rev().nth(n).copied();
        match at {
            At::Absent => None,
            At::Newest => back(0),
            At::Before(n) => back(n),
            At::Never => Some(Fence(u64::MAX >> 2)),
        }
    }
}
