//! What happens, and when: made from a seed, so that a schedule that fails can be run again.

use std::time::Duration;

/// How long things happen; then everything heals.
pub const TROUBLE: Duration = Duration::from_mins(1);

/// Something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The resource gets the policy of this number.
    Edit(u64),
    /// Somebody writes over the policy in etcd.
    Foreign(Foreign),
    /// A process gets SIGKILL and starts again in its pod.
    Kill {
        /// Whose.
        pod: usize,
        /// After that.
        back_after: Duration,
    },
    /// A pod is deleted in an orderly way; another takes its place.
    Replace {
        /// Which one.
        pod: usize,
    },
    /// A process gets SIGSTOP, and SIGCONT.
    Freeze {
        /// Whose.
        pod: usize,
        /// For so long.
        lasts: Duration,
    },
    /// A wire to etcd is in trouble.
    Wire {
        /// A pod's; None: the operator's.
        pod: Option<usize>,
        /// Which trouble.
        fault: Fault,
        /// For so long.
        lasts: Duration,
    },
    /// etcd ends, and starts again.
    Etcd {
        /// What becomes of its data.
        data: Data,
        /// For so long.
        lasts: Duration,
    },
    /// etcd forgets its history.
    Compact,
    /// etcd makes a backup.
    BackUp,
    /// etcd elects a leader.
    Elect,
    /// Somebody ends the lease of an instance.
    EndLease {
        /// Whose.
        pod: usize,
    },
    /// Somebody deletes the report of an instance.
    DeleteReport {
        /// Whose.
        pod: usize,
    },
    /// The operator's process is replaced.
    RestartOperator,
}

/// What somebody writes over the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Not a document.
    Garbage,
    /// A whole document of another policy.
    Another(u64),
    /// Nothing: the key is deleted.
    Deleted,
}

/// A trouble of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connections break and none is made.
    Cut,
    /// Nothing arrives and nobody is told: half-open.
    Silent,
    /// Everything takes up to this long, each way.
    Slow(Duration),
    /// Connections break once.
    Blip,
}

/// What becomes of etcd's data when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It stays.
    Kept,
    /// It is lost.
    Wiped,
    /// It is what the last backup holds.
    Restored,
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it is made from.
    pub seed: u64,
    /// How many pods there are.
    pub pods: usize,
    /// How long a process waits for its first policy before it is ready without.
    pub policy_wait: Duration,
    /// How long it takes until a process that does not answer any more is not ready.
    pub probe: Duration,
    /// In order.
    pub actions: Vec<(Duration, Action)>,
}

/// What the place can do that plays the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// One etcd for every schedule, which nobody but itself may end.
    SharedEtcd,
    /// An etcd of its own.
    OwnEtcd,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64, place: Place) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let pods = random.usize(1..=3);
        let mut schedule = Self {
            seed,
            pods,
            policy_wait: Duration::from_millis(random.u64(0..20_000)),
            probe: Duration::from_millis(random.u64(500..60_000)),
            actions: Vec::new(),
        };
        let most = TROUBLE.as_millis().try_into().unwrap_or(u64::MAX);
        let mut times: Vec<u64> = (0..random.usize(4..=16)).map(|_| random.u64(0..most)).collect();
        times.sort_unstable();
        for at in times {
            let action = action(&mut random, pods, place);
            schedule.actions.push((Duration::from_millis(at), action));
        }
        if place == Place::OwnEtcd {
            schedule.at_bad_moments(&mut random);
        }
        schedule
    }

    /// Trouble of its own comes when it hurts most: just when a policy changes, and while the trouble before lasts.
    fn at_bad_moments(&mut self, random: &mut fastrand::Rng) {
        let mut more = Vec::new();
        for (at, action) in &self.actions {
            let changes = matches!(action, Action::Edit(_) | Action::Foreign(Foreign::Another(_)));
            if !changes || random.u8(0..3) > 0 {
                continue;
            }
            let soon = |random: &mut fastrand::Rng, most| *at + Duration::from_millis(random.u64(0..most));
            let wire = |random: &mut fastrand::Rng, pod| {
                let fault = match random.u8(0..4) {
                    0 => Fault::Cut,
                    1 => Fault::Slow(Duration::from_millis(random.u64(1000..4000))),
                    _ => Fault::Silent,
                };
                Action::Wire { pod, fault, lasts: Duration::from_millis(random.u64(12_000..45_000)) }
            };
            if random.u8(0..4) > 0 {
                more.push((soon(random, 250), wire(random, None)));
            }
            if random.bool() {
                let pod = Some(random.usize(0..self.pods));
                more.push((soon(random, 500), wire(random, pod)));
            }
            if random.u8(0..3) == 0 {
                more.push((soon(random, 12_000), Action::Elect));
            }
            if random.u8(0..3) == 0 {
                more.push((soon(random, 2000), Action::Foreign(Foreign::Another(random.u64(1..=4)))));
            }
            if random.u8(0..6) == 0 {
                more.push((soon(random, 9000), Action::RestartOperator));
            }
        }
        self.actions.extend(more);
        // Stable: what was at one moment stays in its order.
        self.actions.sort_by_key(|(at, _)| *at);
    }
}

fn action(random: &mut fastrand::Rng, pods: usize, place: Place) -> Action {
    let pod = random.usize(0..pods);
    let lasts = Duration::from_millis(random.u64(100..40_000));
    match random.u8(0..100) {
        // Few numbers, so that edits go back to what was in force before.
        0..30 => Action::Edit(random.u64(1..=4)),
        30..35 => Action::Foreign(match random.u8(0..3) {
            0 => Foreign::Garbage,
            1 => Foreign::Another(random.u64(1..=4)),
            _ => Foreign::Deleted,
        }),
        35..47 => Action::Kill { pod, back_after: Duration::from_millis(random.u64(0..5000)) },
        47..52 => Action::Replace { pod },
        52..60 => Action::Freeze { pod, lasts },
        60..78 => {
            let fault = match random.u8(0..4) {
                0 => Fault::Cut,
                1 => Fault::Silent,
                2 => Fault::Slow(Duration::from_millis(random.u64(10..4000))),
                _ => Fault::Blip,
            };
            Action::Wire { pod: random.bool().then_some(pod), fault, lasts }
        }
        78..84 if place == Place::OwnEtcd => {
            let data = match random.u8(0..4) {
                0 => Data::Wiped,
                1 => Data::Restored,
                _ => Data::Kept,
            };
            Action::Etcd { data, lasts: lasts / 3 }
        }
        84..86 if place == Place::OwnEtcd => Action::BackUp,
        86 if place == Place::OwnEtcd => Action::Elect,
        78..90 => Action::Compact,
        90..93 => Action::EndLease { pod },
        93..96 => Action::DeleteReport { pod },
        _ => Action::RestartOperator,
    }
}
