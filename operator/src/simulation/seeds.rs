//! Worlds by seed, each in a runtime of its own with a time of its own.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Plays what `world` does with this seed.
pub fn seeded<T>(seed: u64, world: impl Future<Output = T>) -> T {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(world)
}

/// `of(0)`, `of(1)` and so on, on all cores, until one is None; in any order.
pub fn on_all_cores<T: Send>(of: impl Fn(u64) -> Option<T> + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
    let one_thread = || std::iter::from_fn(|| of(next.fetch_add(1, SeqCst))).collect::<Vec<T>>();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one_thread)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
