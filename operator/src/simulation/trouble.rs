//! What goes wrong: one of the faults of the matrix, at random.

use std::time::Duration;

use fusebox_policy::keys::Ident;
use tokio::time::Instant;

use super::people::NAMES;
use super::town::{Bad, Later, REPLICAS, Town};
use super::view::Sight;
use crate::world::Weather;

fn seconds(least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(least + (most - least) * fastrand::f64())
}

/// How a way is that is in trouble.
fn rough() -> Weather {
    match fastrand::u8(0..4) {
        0 | 1 => Weather { down: true, ..Weather::default() },
        2 => Weather { latency: seconds(0.1, 3.0), ..Weather::default() },
        _ => Weather { lost: fastrand::u8(5..40), slow: fastrand::u8(0..40), ..Weather::default() },
    }
}

impl Town {
    /// Something happens.
    pub fn trouble(&mut self) {
        let at = fastrand::usize(0..self.places.len());
        let what = match fastrand::u8(0..100) {
            0..34 => self.edit(at),
            34..58 => self.instances(at),
            58..70 => self.harm(at),
            70..82 => self.rain(at),
            82..94 => self.meddle(at),
            _ => self.catastrophe(),
        };
        *self.happened.entry(what).or_default() += 1;
    }

    /// A person changes a resource.
    fn edit(&mut self, at: usize) -> &'static str {
        let (namespace, name) = NAMES[fastrand::usize(0..NAMES.len())];
        let of = Ident::new(namespace, name);
        match fastrand::u8(0..10) {
            0 => {
                self.delete(at, &of);
                "resource deleted"
            }
            1 => {
                self.delete(at, &of);
                self.after(seconds(0.0, 10.0), Later::Recreate(at, of));
                "resource deleted and created"
            }
            2 => {
                self.force_away(at, &of);
                "finalizer removed by hand"
            }
            3 => {
                self.force_away(at, &of);
                self.declare(at, &of);
                "resource replaced"
            }
            4 => {
                // Another name for the same.
                let spec = self.places[at].get(&of).map(|resource| resource.spec);
                self.delete(at, &of);
                let (namespace, name) = NAMES[fastrand::usize(0..NAMES.len())];
                let new = Ident::new(namespace, name);
                if let Some(spec) = spec.filter(|_| new != of && namespace == of.namespace) {
                    self.declare(at, &new);
                    self.places[at].change(|cluster| {
                        if let Some(there) = cluster.resources.try_lock().unwrap().get_mut(&new) {
                            there.spec = spec;
                            let generation = there.metadata.generation.unwrap_or_default();
                            there.metadata.generation = Some(generation + 1);
                        }
                    });
                }
                "resource renamed"
            }
            _ => {
                self.declare(at, &of);
                "resource created or edited"
            }
        }
    }

    /// Instances come and go.
    fn instances(&mut self, at: usize) -> &'static str {
        let all = NAMES.into_iter().chain([("shop", "common")]);
        let all: Vec<Ident> = all.map(|(namespace, name)| Ident::new(namespace, name)).collect();
        let of = all[fastrand::usize(0..all.len())].clone();
        match fastrand::u8(0..12) {
            0..3 => {
                self.scale(at, &of, fastrand::usize(1..4));
                "scaled up"
            }
            3 => {
                self.scale(at, &of, fastrand::usize(8..25));
                "scaled far up"
            }
            4..6 => {
                self.shut_down(at, &of, 3);
                "scaled down"
            }
            6 => {
                self.shut_down(at, &of, 40);
                "scaled far down"
            }
            7 => {
                let n = fastrand::usize(1..4);
                self.endpoints(at, &of, |all| all.truncate(all.len().saturating_sub(n)));
                "instances vanish"
            }
            8 => {
                self.endpoints(at, &of, Vec::clear);
                "all instances vanish"
            }
            9 => {
                let mut back = None;
                self.endpoints(at, &of, |all| {
                    if let Some(endpoint) = all.first_mut() {
                        endpoint.ready = !endpoint.ready;
                        back = Some((endpoint.instance.clone(), !endpoint.ready));
                    }
                });
                if let Some((instance, ready)) = back {
                    self.after(seconds(0.0, 2.0), Later::Ready(at, of, instance, ready));
                }
                "an instance flaps"
            }
            10 => {
                self.places[at].change(|cluster| cluster.services.try_lock().unwrap().remove(&of));
                self.after(seconds(0.5, 30.0), Later::Service(at, of));
                "Service deleted and created"
            }
            _ => {
                let mut flapping = Vec::new();
                self.endpoints(at, &of, |all| {
                    flapping = all.iter().map(|e| (e.instance.clone(), e.ready)).collect();
                });
                for (instance, ready) in flapping {
                    self.after(seconds(0.0, 3.0), Later::Ready(at, of.clone(), instance.clone(), !ready));
                    self.after(seconds(3.0, 6.0), Later::Ready(at, of.clone(), instance, true));
                }
                "all instances flap"
            }
        }
    }

    /// A process suffers, mostly the one that leads.
    fn harm(&mut self, at: usize) -> &'static str {
        let leader = self.slots[at].iter().position(|slot| slot.process.believes());
        let n = leader.filter(|_| fastrand::u8(0..4) > 0);
        let n = n.unwrap_or_else(|| fastrand::usize(0..REPLICAS));
        let process = &self.slots[at][n].process;
        match fastrand::u8(0..10) {
            0 | 1 => {
                process.running.abort();
                "process killed"
            }
            2 => {
                process.stop.send_replace(true);
                "process told to end"
            }
            3 => {
                process.ice.freeze(seconds(0.0, 5.0));
                "process frozen for a moment"
            }
            4 => {
                process.ice.freeze(seconds(15.0, 45.0));
                "process frozen"
            }
            5 => {
                let late =
                    Sight { resources: seconds(0.0, 12.0), services: seconds(0.0, 12.0), broken: false };
                process.sight.send_replace(late);
                self.after(seconds(5.0, 60.0), Later::Mend(at, n));
                "watches late"
            }
            6..9 => {
                // Who takes over has an old view, and much has changed.
                for (standby, slot) in self.slots[at].iter().enumerate().filter(|(m, _)| *m != n) {
                    let late = seconds(4.0, 15.0);
                    let sight = Sight { resources: late, services: seconds(0.0, 15.0), broken: false };
                    slot.process.sight.send_replace(sight);
                    self.order += 1;
                    self.later
                        .insert((Instant::now() + seconds(20.0, 30.0), self.order), Later::Mend(at, standby));
                }
                for _ in 0..3 {
                    self.edit(at);
                }
                self.after(seconds(0.5, 4.0), Later::End(at, n));
                "handover to late watches"
            }
            _ => {
                process.sight.send_replace(Sight { broken: true, ..Sight::default() });
                self.after(seconds(1.0, 12.0), Later::Mend(at, n));
                "events missing"
            }
        }
    }

    /// A way is in trouble, or all ways to one backend.
    fn rain(&mut self, at: usize) -> &'static str {
        let way = fastrand::usize(0..3);
        let one = fastrand::bool().then(|| (at, fastrand::usize(0..REPLICAS)));
        let until = Instant::now() + seconds(1.0, 35.0);
        self.bad.push(Bad { of: one, way, weather: rough(), until });
        self.forecast();
        match (one.is_some(), way) {
            (true, 0) => "one process without a whole way to the API server",
            (true, 1) => "one process without a whole way to Consul",
            (true, _) => "one process without a whole way to etcd",
            (false, 0) => "API server away, slow or lossy",
            (false, 1) => "Consul away, slow or lossy",
            (false, _) => "etcd away, slow or lossy",
        }
    }
}
