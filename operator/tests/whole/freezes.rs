//! The leader of two replicas is frozen (SIGSTOP) at a write to Consul or etcd, and what it sent is held until the other
//! one has taken over and done what was asked for meanwhile. Then it arrives, and the store refuses it for its epoch; the
//! frozen one goes on (SIGCONT), and ends. The end is that of an undisturbed run, and then nothing is written.

use std::time::Duration;

use fusebox_processes::{Late, Operator, Outcome, Replica, Server, Site, Write};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::picture::picture;
use crate::undisturbed::{DEADLINE, REST, undisturbed};
use crate::workload::{CLUSTER, NAMESPACE, STEPS, prepare, seed, take, values};
use crate::{ALONE, PROGRAM};

/// How many points of each store an ordinary run takes.
const SAMPLE: usize = 2;

/// A leader on the site's own wires, and who waits to take its place.
struct Pair<'a> {
    site: &'a Site,
    place: &'a Replica,
    leader: Operator,
    other: Operator,
}

impl<'a> Pair<'a> {
    /// Its leader is going to be frozen at the n-th fenced write to this server.
    async fn start(site: &'a Site, place: &'a Replica, server: Server, nth: usize) -> Self {
        site.free_lease().await;
        site.wires.freeze_at(server, nth);
        place.wires.aim(None);
        let mut leader = site.operator(&[]).await;
        let start = Instant::now();
        while !leader.said().contains("this process leads") {
            assert!(leader.ended().is_none() && Instant::now() - start < DEADLINE, "{}", leader.said());
            sleep(Duration::from_millis(20)).await;
        }
        let other = site.operator_at(place, &[]).await;
        Self { site, place, leader, other }
    }

    fn said(&self) -> String {
        format!("{}\n-- the other one:\n{}", self.leader.said(), self.other.said())
    }

    /// Waits until it is so.
    async fn until(&mut self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self).await {
            assert!(self.other.ended().is_none(), "{what}: the other one ended\n{}", self.said());
            if Instant::now() - start > DEADLINE {
                let now = picture(self.site, CLUSTER, NAMESPACE).await;
                panic!("never: {what}\nit is {now:#}\n{}", self.said());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// After the other one has taken over: what was held arrives, and the leader of before goes on and ends.
    async fn thaw(&mut self, frozen: &Write, wanted: &Value) -> Vec<Late> {
        let what = format!("frozen at {frozen:?}");
        self.until(&what, async |pair| pair.other.said().contains("the work begins")).await;
        self.until(&what, async |pair| picture(pair.site, CLUSTER, NAMESPACE).await == *wanted).await;
        assert!(self.leader.ended().is_none(), "{what}: it cannot end while it is frozen");
        self.site.wires.thaw();
        // It sleeps still: nobody but the store decides.
        self.until(&format!("{what}: the answers to what was held"), async |pair| {
            let late = pair.site.wires.late();
            late.iter().any(|late| late.write == *frozen) && late.iter().all(|late| late.outcome.is_some())
        })
        .await;
        self.leader.freeze(false);
        let ended = timeout(DEADLINE, self.leader.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{what}: it works on\n{}", self.said()));
        assert!(ended.code().is_some_and(|code| code != 0), "{what}: {ended}\n{}", self.said());
        self.site.wires.late()
    }

    /// It is as `wanted` says, and nothing is written.
    async fn rests(&mut self, what: &str, wanted: &Value) {
        self.until(what, async |pair| {
            let written = || pair.site.wires.writes().len() + pair.place.wires.writes().len();
            let before = written();
            sleep(REST).await;
            written() == before && picture(pair.site, CLUSTER, NAMESPACE).await == *wanted
        })
        .await;
    }
}

/// A life of the workload; the write its leader was frozen at, and what arrived late of it.
async fn life(
    site: &Site,
    place: &Replica,
    (server, nth): (Server, usize),
    pictures: &[Value],
) -> Option<(Write, Vec<Late>)> {
    let what = format!("{server:?} {nth}");
    let mut pair = Pair::start(site, place, server, nth).await;
    let mut came = None;
    for (at, (step, wanted)) in STEPS.into_iter().zip(pictures).enumerate() {
        take(site, step).await;
        let is_last = at + 1 == STEPS.len();
        if came.is_none() {
            pair.until(&format!("{what}: {step:?}"), async |pair| {
                pair.site.wires.frozen().is_some() || picture(site, CLUSTER, NAMESPACE).await == *wanted
            })
            .await;
        }
        match site.wires.frozen() {
            // The next step comes meanwhile, for the other one to do.
            Some(write) if came.is_none() && !is_last => came = Some((write, None)),
            Some(write) if came.as_ref().is_none_or(|(_, late)| late.is_none()) => {
                came = Some((write.clone(), Some(pair.thaw(&write, wanted).await)));
                pair.rests(&format!("{what}: {step:?}"), wanted).await;
            }
            _ => {
                let done = async |pair: &Pair<'_>| picture(pair.site, CLUSTER, NAMESPACE).await == *wanted;
                pair.until(&format!("{what}: {step:?}"), done).await;
            }
        }
    }
    if came.is_some() {
        pair.rests(&what, pictures.last()?).await;
    } else {
        pair.leader.kill().await;
    }
    pair.other.kill().await;
    let (write, late) = came?;
    Some((write, late?))
}

/// Freezes at the points of one store: how many there were, and what came of each that was met.
async fn all(server: Server) -> (usize, Vec<(Write, Vec<Late>)>) {
    let site = Site::start(PROGRAM, &values()).await;
    prepare(&site).await;
    let place = site.replica("operator-1").await;
    let (pictures, writes) = undisturbed(&site).await;
    let points = writes.iter().filter(|write| write.server == server && write.is_fenced()).count();
    let every = if fusebox_processes::long() { 1 } else { points.div_ceil(SAMPLE) };
    let chosen: Vec<usize> = (0..points).skip(seed() % every).step_by(every).collect();
    let mut lives = Vec::new();
    for nth in &chosen {
        lives.extend(life(&site, &place, (server, *nth), &pictures).await);
    }
    println!("{server:?}: frozen at {} of {} chosen, of {points}", lives.len(), chosen.len());
    (chosen.len(), lives)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_leader_sent_is_refused_once_another_one_leads() {
    let _alone = ALONE.lock().await;
    // Most of it is the running out of the Lease.
    let (consul, etcd) = tokio::join!(all(Server::Consul), all(Server::Etcd));
    let stores = [("Consul", consul), ("etcd", etcd)];
    let (mut delivered, mut unfenced) = ([0, 0], Vec::new());
    for (nth, (of, (_, lives))) in stores.iter().enumerate() {
        let late = lives.iter().flat_map(|(_, late)| late);
        let (fenced, others): (Vec<&Late>, Vec<&Late>) = late.partition(|late| late.write.is_fenced());
        delivered[nth] = fenced.len();
        let accepted = fenced.iter().filter(|late| late.outcome == Some(Outcome::Done)).count();
        println!(
            "{of}: {} freezes, at {}; stale writes delivered {}, accepted {}; others, without a fence, {}",
            lives.len(),
            lives.iter().map(|(write, _)| write.what.as_str()).collect::<Vec<_>>().join(", "),
            delivered[nth],
            accepted,
            others.len(),
        );
        // What something else refuses the fence may have let pass.
        unfenced.extend(fenced.into_iter().filter(|late| late.outcome != Some(Outcome::Fenced)));
    }
    assert!(unfenced.is_empty(), "{unfenced:?}");
    for ((of, (chosen, lives)), delivered) in stores.iter().zip(delivered) {
        assert!(delivered >= lives.len(), "{of}: {delivered}");
        // Writes that come together in one run are two in another.
        assert!(!lives.is_empty() && lives.len() * 2 >= *chosen, "{of}: {} of {chosen} points", lives.len());
    }
}
