//! Which of two endpoints is called: pure.
//!
//! Two are drawn at random (power of two choices), and the one with the lower *cost* is called: its latency
//! times the calls it has in flight, for its weight, and one. Where the costs differ by less than a factor of
//! two it is chance, by weight: latencies are noisy, and at low load the weights would count for nothing.

/// What is known of one of the two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// In microseconds; None: it was not called yet.
    pub(super) latency: Option<f32>,
    /// Calls in flight.
    pub(super) pending: u32,
    /// Above zero.
    pub(super) weight: f32,
}

/// Costs that differ by less than this factor are alike.
const ALIKE: f32 = 2.0;

/// Whether it is the first; `chance`: from 0 to 1, at random.
pub(super) fn first(a: Candidate, b: Candidate, chance: f32) -> bool {
    let all = a.weight + b.weight;
    // Who was not called yet is taken to be like the other.
    let latency = |of: Candidate, other: Candidate| of.latency.or(other.latency).unwrap_or(1.0);
    let cost = |of: Candidate, other: Candidate| {
        #[allow(clippy::cast_precision_loss)] // a million at most
        let pending = of.pending as f32;
        // For its weight: as many times the average of the two.
        latency(of, other) * (1.0 + pending * all / (2.0 * of.weight))
    };
    let (cost_a, cost_b) = (cost(a, b), cost(b, a));
    if cost_a >= ALIKE * cost_b {
        false
    } else if cost_b >= ALIKE * cost_a {
        true
    } else {
        chance * all < a.weight
    }
}

/// Two different places of a list of `len`, which is at least 2, by two numbers from 0 to 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(super) fn two_of(len: usize, one: f64, other: f64) -> (usize, usize) {
    let draw = |part: f64, of: usize| ((part * of as f64) as usize).min(of - 1);
    let a = draw(one, len);
    let b = draw(other, len - 1);
    (a, if b >= a { b + 1 } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(latency: f32, pending: u32, weight: f32) -> Candidate {
        Candidate { latency: Some(latency), pending, weight }
    }

    #[test]
    fn the_costlier_of_two_is_never_called() {
        for chance in [0.0, 0.5, 0.999] {
            assert!(first(of(1.0, 0, 1.0), of(2.0, 0, 1.0), chance), "twice as slow");
            assert!(first(of(1.0, 0, 1.0), of(1.0, 1, 1.0), chance), "busy");
            assert!(!first(of(1.0, 9, 1.0), of(4.0, 0, 1.0), chance), "fast, but too busy");
            assert!(first(of(1.0, 9, 10.0), of(1.0, 9, 1.0), chance), "made to be busy");
        }
    }

    #[test]
    fn those_that_are_alike_are_called_by_weight() {
        let share = |a, b| (0_u8..100).filter(|n| first(a, b, f32::from(*n) / 100.0)).count();
        assert_eq!(share(of(1.0, 0, 1.0), of(1.9, 0, 1.0)), 50);
        assert_eq!(share(of(1.0, 0, 9.0), of(1.0, 0, 1.0)), 90);
        let new = Candidate { latency: None, ..of(0.0, 0, 1.0) };
        assert_eq!(share(new, of(900.0, 0, 1.0)), 50, "a new one is taken to be like the other");
        assert_eq!(share(new, new), 50);
    }

    #[test]
    fn two_are_different_and_all_pairs_are_drawn() {
        for len in 2..6_usize {
            let mut seen = std::collections::BTreeSet::new();
            for one in 0..60 {
                for other in 0..60 {
                    let (a, b) = two_of(len, f64::from(one) / 60.0, f64::from(other) / 60.0);
                    assert!(a != b && a < len && b < len);
                    seen.insert((a, b));
                }
            }
            assert_eq!(seen.len(), len * (len - 1));
        }
        assert_eq!(two_of(2, 1.0, 1.0), (1, 0));
    }
}
