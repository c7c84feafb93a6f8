//! The breaker against a slow, exact model, under random schedules of calls that end late, early or
//! never, time, and reloads.

use fusebox_policy::policy::{BreakerMode, BreakerPolicy, SlowCall};
use proptest::prelude::*;

use super::gate::{Ended, Gate};
use super::state::{Admission, Phase, Verdict};
use crate::clock::{Now, Tick};
use crate::slot::Slot;

/// Says in whole lists what the breaker keeps in bits. Written from design.md §5, not from the code.
#[derive(Debug)]
struct Model {
    policy: BreakerPolicy,
    phase: Is,
    /// How often the phase has changed.
    changes: usize,
    /// Outcomes of this closed phase.
    seen: Vec<Seen>,
    /// Failures of this closed phase since its last success.
    in_a_row: u64,
    /// The next outcome is judged even if it is a success in time.
    watchful: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: u64,
    bad: bool,
    slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Closed,
    Open { since: u64 },
    HalfOpen { in_flight: u64, succeeded: u64 },
}

/// A call that the model let pass: the phase it was admitted in, and as what.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticket {
    change: usize,
    probe: bool,
}

impl Model {
    fn become_(&mut self, phase: Is) {
        self.phase = phase;
        self.changes += 1;
        self.seen.clear();
        self.in_a_row = 0;
    }

    fn probes(&self) -> u64 {
        u64::from(self.policy.half_open_probes.get())
    }

    /// Refused, or passes; with None it is not counted.
    fn admit(&mut self, now: u64) -> Result<Option<Ticket>, ()> {
        match self.policy.mode {
            BreakerMode::Disabled => return Ok(None),
            BreakerMode::ForcedOpen => return Err(()),
            BreakerMode::ForcedClosed => return Ok(Some(Ticket { change: self.changes, probe: false })),
            BreakerMode::Enforce => {}
        }
        if let Is::HalfOpen { succeeded, .. } = self.phase
            && succeeded >= self.probes()
        {
            self.become_(Is::Closed);
        }
        if let Is::Open { since } = self.phase
            && now - since >= u64::from(self.policy.sleep_window_ms)
        {
            self.become_(Is::HalfOpen { in_flight: 0, succeeded: 0 });
        }
        let probes = self.probes();
        match &mut self.phase {
            Is::Closed => Ok(Some(Ticket { change: self.changes, probe: false })),
            Is::HalfOpen { in_flight, succeeded } if *in_flight + *succeeded < probes => {
                *in_flight += 1;
                Ok(Some(Ticket { change: self.changes, probe: true }))
            }
            _ => Err(()),
        }
    }

    fn settle(&mut self, ticket: Option<Ticket>, verdict: Verdict, slow: bool, now: u64) {
        let Some(ticket) = ticket.filter(|ticket| ticket.change == self.changes) else { return };
        let enforced = self.policy.mode == BreakerMode::Enforce;
        let probes = self.probes();
        match &mut self.phase {
            Is::HalfOpen { in_flight, succeeded } if ticket.probe => {
                *in_flight -= 1;
                match verdict {
                    Verdict::Bad if enforced => self.become_(Is::Open { since: now }),
                    Verdict::Good if enforced && slow => self.become_(Is::Open { since: now }),
                    Verdict::Good if enforced => {
                        *succeeded += 1;
                        if *succeeded >= probes {
                            self.become_(Is::Closed);
                        }
                    }
                    _ => {}
                }
            }
            Is::Closed if verdict != Verdict::Neither && self.policy.mode != BreakerMode::Disabled => {
                let bad = verdict == Verdict::Bad;
                self.seen.push(Seen { at: now, bad, slow });
                self.in_a_row = if bad { self.in_a_row + 1 } else { 0 };
                if enforced && (bad || slow || self.watchful) && self.judge(now) {
                    self.become_(Is::Open { since: now });
                }
            }
            _ => {}
        }
    }

    /// Whether it opens.
    fn judge(&mut self, now: u64) -> bool {
        let width = self.width();
        let recent = || self.seen.iter().filter(|seen| now / width - seen.at / width < 10);
        let all = recent().count() as u64;
        let bad = recent().filter(|seen| seen.bad).count() as u64;
        let slow = recent().filter(|seen| seen.slow).count() as u64;
        let judged = all >= u64::from(self.policy.request_volume_threshold);
        self.watchful = !judged && bad + slow > 0;
        let reaches = |part: u64, percent: u64| judged && part * 100 >= percent * all;
        self.policy.consecutive_failures.is_some_and(|limit| self.in_a_row >= u64::from(limit))
            || reaches(bad, self.policy.error_percent_threshold.into())
            || self.policy.slow_call.is_some_and(|limit| reaches(slow, limit.percent.into()))
    }

    fn width(&self) -> u64 {
        u64::from(self.policy.rolling_window_ms) / 10
    }

    /// The table of carry-over: everything stays; counts keep the end of their bucket as their time,
    /// and what is then out of the window is gone for good.
    fn reload(&mut self, policy: BreakerPolicy, now: u64) {
        let old = self.width();
        self.policy = policy;
        self.watchful = true;
        let new = self.width();
        if old != new {
            self.seen.retain(|seen| now / old - seen.at / old < 10);
            for seen in &mut self.seen {
                seen.at = ((seen.at / old + 1) * old - 1).min(now);
            }
            self.seen.retain(|seen| now / new - seen.at / new < 10);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Call,
    /// Ends one of the calls in flight, the n-th modulo their number.
    /// Whether it took long is asked only where the policy wants to know.
    End(usize, Verdict, bool),
    Reload(BreakerPolicy),
}

fn policies() -> impl Strategy<Value = BreakerPolicy> {
    let mode = prop_oneof![
        8 => Just(BreakerMode::Enforce),
        1 => Just(BreakerMode::ForcedOpen),
        1 => Just(BreakerMode::ForcedClosed),
        1 => Just(BreakerMode::Disabled),
    ];
    let length = prop_oneof![Just(1000_u64), Just(1005), Just(2000), Just(10_000)];
    let consecutive = prop_oneof![3 => Just(None), 1 => (1..=4_u64).prop_map(Some)];
    let slow = prop_oneof![2 => Just(None), 1 => (1..=100_u64).prop_map(Some)];
    (1..=100_u64, 1..=6_u64, 1..=900_u64, length, 1..=3_u64, mode, consecutive, slow).prop_map(
        |(percent, volume, sleep, length, probes, mode, consecutive, slow)| BreakerPolicy {
            error_percent_threshold: percent.try_into().unwrap(),
            request_volume_threshold: volume.try_into().unwrap(),
            sleep_window_ms: sleep.try_into().unwrap(),
            rolling_window_ms: length.try_into().unwrap(),
            half_open_probes: probes.try_into().unwrap(),
            consecutive_failures: consecutive.map(|limit| limit.try_into().unwrap()),
            slow_call: slow.map(|percent| SlowCall {
                threshold_ms: 1.try_into().unwrap(),
                percent: percent.try_into().unwrap(),
            }),
            count_rejections: false,
            mode,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Bad),
        3 => Just(Verdict::Good),
        1 => Just(Verdict::Neither),
    ];
    let step = prop_oneof![
        3 => prop_oneof![0..20_u64, 0..400_u64, 900..1100_u64, 0..12_000_u64].prop_map(Step::Wait),
        8 => Just(Step::Call),
        8 => (any::<usize>(), verdict, any::<bool>())
            .prop_map(|(which, verdict, slow)| Step::End(which, verdict, slow)),
        1 => policies().prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 0..200)
}

/// 2,000, or 200,000 with `FUSEBOX_LONG=1`.
fn schedules() -> ProptestConfig {
    let long = std::env::var_os("FUSEBOX_LONG").is_some_and(|long| long == "1");
    let cases = if long { 200_000 } else { 2000 };
    println!("the breaker against its model: {cases} random schedules of up to 200 steps");
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(schedules())]

    /// Admissions, refusals and state are the model's after every step.
    #[test]
    fn the_breaker_is_its_model(first in policies(), steps in steps()) {
        let mut policy = first.clone();
        let gate = Gate::new(policy.rolling_window_ms.get(), 2);
        let mut model = Model {
            policy: first,
            phase: Is::Closed,
            changes: 0,
            seen: Vec::new(),
            in_a_row: 0,
            watchful: false,
        };
        let mut in_flight: Vec<(Option<Admission>, Option<Ticket>)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match &step {
                Step::Wait(millis) => now += millis,
                Step::Call => match (gate.admit(Some(&policy), Tick(now)).0, model.admit(now)) {
                    (Ok(admission), Ok(ticket)) => {
                        prop_assert_eq!(admission.map(|a| a.probe), ticket.map(|t| t.probe));
                        in_flight.push((admission, ticket));
                    }
                    (Err(retry_after), Err(())) => prop_assert!(retry_after <= policy.sleep_window_ms.get()),
                    (real, model) => prop_assert!(false, "{step:?} at {now}: {real:?}, model {model:?}"),
                },
                Step::End(which, verdict, slow) if !in_flight.is_empty() => {
                    let (admission, ticket) = in_flight.swap_remove(which % in_flight.len());
                    let slow = *slow && policy.slow_call.is_some();
                    let plain = policy.mode == BreakerMode::Enforce && *verdict == Verdict::Good && !slow;
                    if let Some(admission) = admission
                        // As a fuse does: the short way first.
                        && !(plain && !admission.probe && gate.succeed(admission.generation, Now(now * 1_000_000), Slot::mine()))
                    {
                        gate.settle(Some(&policy), admission, Ended { verdict: *verdict, slow }, Tick(now));
                    }
                    model.settle(ticket, *verdict, slow, now);
                }
                Step::End(..) => {}
                Step::Reload(next) => {
                    policy = next.clone();
                    gate.reload(&policy, Tick(now));
                    model.reload(next.clone(), now);
                }
            }
            let real = match gate.state().phase {
                Phase::Closed => Is::Closed,
                Phase::Open { since } => Is::Open { since: since.0 },
                Phase::HalfOpen { in_flight, succeeded } => {
                    Is::HalfOpen { in_flight: in_flight.into(), succeeded: succeeded.into() }
                }
            };
            prop_assert_eq!(real, model.phase, "after {:?} at {}", step, now);
            prop_assert_eq!(gate.state().generation as usize, model.changes);
        }
    }
}

/// Threads that race for probes, each phase anew: exactly as many pass as allowed, and one verdict
/// decides. They start each phase together, or they would hardly ever meet.
#[test]
fn no_more_probes_pass_than_allowed() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    const PHASES: u32 = 30_000;
    const THREADS: u32 = 2;
    const PROBES: u32 = 3;
    let policy = BreakerPolicy {
        error_percent_threshold: 1.try_into().unwrap(),
        request_volume_threshold: 1.try_into().unwrap(),
        sleep_window_ms: 1.try_into().unwrap(),
        half_open_probes: u64::from(PROBES).try_into().unwrap(),
        ..BreakerPolicy::default()
    };
    let gate = Gate::new(policy.rolling_window_ms.get(), 2);
    let (first, _) = gate.admit(Some(&policy), Tick(0));
    let ended = |verdict| Ended { verdict, slow: false };
    gate.settle(Some(&policy), first.unwrap().unwrap(), ended(Verdict::Bad), Tick(0));
    let arrived = AtomicU32::new(0);
    let meet = |nth: u32| {
        arrived.fetch_add(1, SeqCst);
        // Spinning, so that they leave at the same moment.
        for spin in 0.. {
            match arrived.load(SeqCst) < nth * THREADS {
                true if spin % 256 == 255 => std::thread::yield_now(),
                true => std::hint::spin_loop(),
                false => return,
            }
        }
    };
    // By phase: probes that passed and are not settled; and how many those were when both threads had
    // asked for all they wanted. Judged at the end: a thread that panics would leave the other waiting.
    let [under_way, seen] = [(); 2].map(|()| (0..PHASES).map(|_| AtomicU32::new(0)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (policy, gate, meet, under_way, seen) = (&policy, &gate, &meet, &under_way, &seen);
            scope.spawn(move || {
                for phase in 0..PHASES {
                    let tick = Tick(u64::from(phase + 1) * 2);
                    let pass = || {
                        let admission = gate.admit(Some(policy), tick).0.ok()??;
                        under_way[phase as usize].fetch_add(1, SeqCst);
                        Some(admission)
                    };
                    let settle = |admission, verdict| {
                        gate.settle(Some(policy), admission, ended(verdict), tick);
                        under_way[phase as usize].fetch_sub(1, SeqCst);
                    };
                    meet(phase * 3 + 1);
                    let mut passed: Vec<_> = (0..PROBES).filter_map(|_| pass()).collect();
                    if phase % 2 == 1 && thread == 0 {
                        // Frees a slot in the midst of it, for either of them.
                        passed.pop().into_iter().for_each(|admission| settle(admission, Verdict::Neither));
                    }
                    passed.extend(pass());
                    meet(phase * 3 + 2);
                    seen[phase as usize].store(under_way[phase as usize].load(SeqCst), SeqCst);
                    meet(phase * 3 + 3);
                    for admission in passed {
                        settle(admission, Verdict::Bad);
                    }
                }
            });
        }
    });
    for (phase, seen) in seen.into_iter().map(AtomicU32::into_inner).enumerate() {
        assert!(seen <= PROBES && (phase % 2 == 1 || seen == PROBES), "{seen} probes in phase {phase}");
    }
    let counts = &gate.transitions;
    let counted = [&counts.half_opened, &counts.opened].map(|count| count.load(SeqCst));
    assert_eq!(counted, [u64::from(PHASES), u64::from(PHASES) + 1], "one verdict decides");
    assert!(under_way.iter().all(|count| count.load(SeqCst) == 0));
}
