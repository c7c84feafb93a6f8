//! SIGKILL at every write on the wire, before the server has it and after the server answered, and another process after
//! it, which is killed as well, in the middle of its recovery: the end is that of an undisturbed run, nothing else's is
//! touched, and then nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use fusebox_processes::{Aim, Operator, Server, Side, Site, Write};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::picture::picture;
use crate::undisturbed::{DEADLINE, REST, undisturbed};
use crate::workload::{CLUSTER, NAMESPACE, STEPS, Step, prepare, seed, take, values};
use crate::{ALONE, PROGRAM};

/// How many points an ordinary run takes.
const SAMPLE: usize = 6;

/// A run of the workload under one operator after the other.
struct Run<'a> {
    site: &'a Site,
    operator: Operator,
    /// Where the process in its place is to be killed.
    again: Option<Aim>,
    shots: Vec<Write>,
}

impl<'a> Run<'a> {
    async fn start(site: &'a Site, aim: Aim, again: Aim) -> Self {
        site.free_lease().await;
        site.wires.aim(Some(aim));
        Self { site, operator: site.operator(&[]).await, again: Some(again), shots: Vec::new() }
    }

    /// Another process in the place of one that was killed; one that ended for another reason is a failure.
    async fn keep_alive(&mut self) {
        if let Some(status) = self.operator.ended() {
            let Some(shot) = self.site.wires.shot() else {
                panic!("the operator ended by itself: {status}\n{}", self.operator.said());
            };
            self.shots.push(shot);
            self.site.wires.aim(self.again.take());
            self.site.free_lease().await;
            self.operator = self.site.operator(&[]).await;
        }
    }

    /// Waits until all is as `wanted` says; what it is like then.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            self.keep_alive().await;
            let now = picture(self.site, CLUSTER, NAMESPACE).await;
            if wanted(&now) {
                return now;
            }
            assert!(
                Instant::now() - start < DEADLINE,
                "never: {what}\nshot at {:?}\nit is {now:#}\n{}",
                self.shots,
                self.operator.said()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Comes to rest, and writes nothing for a while: a process that took the place of one
    /// raises the epochs, no more.
    async fn rests(&mut self, what: &str, wanted: &Value) {
        let begun = Instant::now();
        while !self.operator.said().contains("the work begins") {
            self.keep_alive().await;
            assert!(Instant::now() - begun < DEADLINE, "{what}: {}", self.operator.said());
            sleep(Duration::from_millis(50)).await;
        }
        self.until(what, |now| now == wanted).await;
        // Its first look for orphans may have begun before a clean-up ended, and removes once more what that removed.
        loop {
            let before = self.site.wires.writes().len();
            sleep(REST).await;
            let writes = self.site.wires.writes();
            if writes[before..].is_empty() {
                break;
            }
            let said = self.operator.said();
            assert!(
                Instant::now() - begun < DEADLINE,
                "{what}: never at rest: {:?}\n{said}",
                &writes[before..]
            );
        }
        self.until(what, |now| now == wanted).await;
        assert!(self.operator.ended().is_none(), "{what}: {}", self.operator.said());
    }
}

/// One run with a kill, and one in its recovery; the writes they were at.
async fn killed(site: &Site, aim: Aim, again: Aim, reference: &[Value]) -> Vec<Write> {
    let mut run = Run::start(site, aim, again).await;
    for (step, wanted) in STEPS.into_iter().zip(reference) {
        take(site, step).await;
        run.until(&format!("{aim:?}: {step:?} as without a kill, {wanted:#}"), |now| now == wanted).await;
        if matches!(step, Step::Scale | Step::Delete) {
            run.rests(&format!("{aim:?} {step:?}"), wanted).await;
            assert_eq!(picture(site, CLUSTER, NAMESPACE).await, *wanted, "{aim:?} {step:?}");
        }
    }
    assert_eq!(site.wires.shot(), None, "{aim:?}: nobody took its place");
    run.operator.kill().await;
    run.shots
}

/// Where the next process is killed: at one of its first writes to that server, the epoch's among them.
fn again(nth: usize) -> Aim {
    let server = [Server::Etcd, Server::Consul, Server::Kubernetes][nth % 3];
    Aim { server, nth: nth / 3 % 3, side: [Side::After, Side::Before][nth / 9 % 2] }
}

/// Every point of the undisturbed run, both sides.
fn points(writes: &[Write]) -> Vec<Aim> {
    let mut all = Vec::new();
    for server in [Server::Kubernetes, Server::Consul, Server::Etcd] {
        let count = writes.iter().filter(|write| write.server == server).count();
        for nth in 0..count {
            all.extend([Side::Before, Side::After].map(|side| Aim { server, nth, side }));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_write_on_the_wire_changes_nothing_in_the_end() {
    let _alone = ALONE.lock().await;
    let site = Site::start(PROGRAM, &values()).await;
    prepare(&site).await;
    let (pictures, writes) = undisturbed(&site).await;
    let all = points(&writes);
    let seed = seed();
    // Odd, so that both sides are in it.
    let every = if fusebox_processes::long() { 1 } else { all.len().div_ceil(SAMPLE) | 1 };
    let chosen: Vec<Aim> = all.iter().copied().skip(seed % every).step_by(every).collect();
    println!("{} writes of an undisturbed run: {}", writes.len(), told(&writes));
    let (mut at, mut missed, mut twice) = (BTreeMap::<(Side, String), usize>::new(), 0, Vec::new());
    let start = Instant::now();
    for (nth, aim) in chosen.iter().enumerate() {
        let mut shots = killed(&site, *aim, again(seed + nth), &pictures).await.into_iter();
        match shots.next() {
            Some(write) => {
                *at.entry((aim.side, format!("{:?} {}", write.server, write.what))).or_default() += 1;
            }
            // Writes that come together in one run are two in another.
            None => missed += 1,
        }
        twice.extend(shots);
    }
    println!(
        "killed at {} of {} points (FUSEBOX_SEED={seed}), {missed} not met, in {:?}: {at:#?}; and in {} recoveries: {}",
        chosen.len() - missed,
        all.len(),
        Instant::now() - start,
        twice.len(),
        told(&twice)
    );
    assert!(!twice.is_empty(), "no recovery was met");
    assert!(missed * 5 <= chosen.len(), "{missed} of {} points were not met", chosen.len());
}

fn told(writes: &[Write]) -> String {
    let each = writes.iter().map(|write| format!("{:?} {}", write.server, write.what));
    each.collect::<Vec<_>>().join(", ")
}
