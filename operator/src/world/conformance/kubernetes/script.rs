//! What is asked, and what happens meanwhile.

use fastrand::Rng;

use super::admission;

pub const NAMES: [&str; 2] = ["user", "two"];
pub const ROUTES: [&str; 2] = ["r1", "r2"];

#[derive(Clone, Debug)]
pub enum Step {
    /// What a watch shows of it, from now on, in this place.
    Show(usize, &'static str),
    Fresh,
    Standing(usize),
    Finalizer(usize, bool),
    Status(usize, &'static str),
    Routes,
    Apply(usize, &'static str, usize),
    Unroute(usize, &'static str),
    Lease,
    /// By this holder, as it was read so many reads ago; None: as if there were none.
    Hold(&'static str, Option<usize>),
    // What others do.
    Create(&'static str),
    /// Creates it, or makes it say this and no more.
    Declare(&'static str, &'static str),
    Edit(&'static str),
    Label(&'static str),
    Guard(&'static str),
    Strip(&'static str),
    Delete(&'static str),
    TheirRoute(&'static str),
    TheirField(&'static str, &'static str),
    DeleteRoute(&'static str),
    TouchLease,
    DeleteLease,
}

/// What the operator relies on, one after the other.
#[allow(clippy::too_many_lines, reason = "a list")]
fn told_in_order() -> Vec<Step> {
    [of_resources(), of_routes(), of_the_lease()].concat()
}

fn of_resources() -> Vec<Step> {
    use Step::{Create, Delete, Edit, Finalizer, Fresh, Guard, Label, Show, Standing, Status, Strip};
    let [user, two] = NAMES;
    vec![
        Fresh,
        Create(user),
        Create(two),
        Fresh,
        Show(0, user),
        Standing(0),
        Label(user),
        Standing(0),
        Status(0, "1"),
        Standing(0),
        Edit(user),
        Standing(0),
        Status(0, "2"),
        Show(1, user),
        // A finalizer, though the view is old.
        Finalizer(0, true),
        Finalizer(0, true),
        Show(1, user),
        Standing(1),
        Finalizer(1, false),
        Guard(user),
        Finalizer(0, true),
        Show(1, user),
        Delete(user),
        Standing(1),
        Show(1, user),
        Standing(1),
        Delete(user),
        Show(1, user),
        Finalizer(1, true),
        Status(1, "3"),
        Show(1, user),
        Finalizer(1, false),
        Finalizer(1, true),
        Show(2, user),
        Fresh,
        Strip(user),
        Show(2, user),
        // Gone, and another of its name.
        Standing(1),
        Finalizer(1, false),
        Finalizer(1, true),
        Status(1, "4"),
        Create(user),
        Standing(1),
        Finalizer(1, true),
        Status(1, "5"),
        Show(2, user),
        Fresh,
        Delete(user),
        Standing(2),
    ]
}

/// They are their owner's, and what others write into them stays.
fn of_routes() -> Vec<Step> {
    use Step::{Apply, Create, DeleteRoute, Routes, Show, TheirField, TheirRoute, Unroute};
    let [user, two] = NAMES;
    let [one, other] = ROUTES;
    vec![
        Create(user),
        Show(0, user),
        Show(1, two),
        Routes,
        Unroute(0, one),
        Apply(0, one, 0),
        Routes,
        Apply(1, one, 1),
        Unroute(1, one),
        Apply(0, one, 2),
        Routes,
        Apply(0, one, 1),
        Routes,
        TheirRoute(other),
        Apply(0, other, 0),
        Unroute(0, other),
        Routes,
        DeleteRoute(other),
        DeleteRoute(one),
        Unroute(0, one),
        Routes,
        // What others write into them.
        Apply(0, one, 0),
        TheirField(one, "tls"),
        Routes,
        Apply(0, one, 1),
        Routes,
        Apply(0, one, 2),
        Routes,
        Apply(0, one, 1),
        Routes,
        TheirField(one, "entryPoints"),
        Apply(0, one, 0),
        Routes,
        Apply(0, one, 1),
        Routes,
        Unroute(0, one),
        Apply(0, one, 1),
        Routes,
    ]
}

/// One writes it, of those who read the same.
fn of_the_lease() -> Vec<Step> {
    use Step::{DeleteLease, Hold, Lease, TouchLease};
    vec![
        Lease,
        Hold("a", None),
        Hold("b", None),
        Lease,
        Hold("a", Some(0)),
        Hold("b", Some(0)),
        Lease,
        TouchLease,
        Hold("a", Some(0)),
        Lease,
        Hold("", Some(0)),
        Lease,
        DeleteLease,
        Hold("b", Some(0)),
        Lease,
        Hold("b", None),
        Hold("a", Some(0)),
        Lease,
    ]
}

fn random(seed: u64) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut steps = vec![Step::Create(NAMES[0]), Step::Show(0, NAMES[0])];
    for _ in 0..50 {
        steps.push(step(&mut rng));
    }
    steps.extend([Step::Show(3, NAMES[0]), Step::Show(4, NAMES[1]), Step::Fresh, Step::Routes, Step::Lease]);
    steps
}

fn step(rng: &mut Rng) -> Step {
    let name = NAMES[[0, 0, 0, 1][rng.usize(0..4)]];
    let route = ROUTES[rng.usize(0..2)];
    let at = rng.usize(0..3);
    match rng.u8(0..40) {
        0..5 => Step::Show(at, name),
        5 => Step::Fresh,
        6 | 7 => Step::Standing(at),
        8..11 => Step::Finalizer(at, rng.u8(0..3) > 0),
        11 | 12 => Step::Finalizer(at, false),
        13 | 14 => Step::Status(at, ["1", "2"][rng.usize(0..2)]),
        15 | 16 => Step::Routes,
        17..21 => Step::Apply(at, route, rng.usize(0..3)),
        21 => Step::Unroute(at, route),
        22 | 23 => Step::Lease,
        24..27 => {
            Step::Hold(["a", "b", ""][rng.usize(0..3)], [None, Some(0), Some(0), Some(1)][rng.usize(0..4)])
        }
        27..30 => Step::Create(name),
        30 => Step::Edit(name),
        31 => Step::Label(name),
        32 => Step::Guard(name),
        33 => Step::Strip(name),
        34 | 35 => Step::Delete(name),
        36 => Step::TheirRoute(route),
        37 | 38 => Step::TheirField(route, ["tls", "entryPoints"][rng.usize(0..2)]),
        _ => [Step::DeleteRoute(route), Step::TouchLease, Step::DeleteLease][rng.usize(0..3)].clone(),
    }
}

/// Those that are written by hand, with the first seeds, and one for each seed.
pub fn scripts(seeds: std::ops::Range<u64>) -> Vec<(String, Vec<Step>)> {
    let first = [("told in order", told_in_order()), ("admission", admission::script())];
    let asked = seeds.start == 0;
    let first = first.into_iter().filter(|_| asked).map(|(name, steps)| (name.to_owned(), steps));
    first.chain(seeds.map(|seed| (format!("random {seed}"), random(seed)))).collect()
}
