//! A figure as a line of JSON.

use serde::Serialize;

use super::version;

/// What `cargo xtask bench` reads.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    pub bench: &'static str,
    pub case: String,
    pub subject: String,
    pub version: &'static str,
    pub threads: usize,
    pub window: &'static str,
    pub unit: &'static str,
    pub value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocs: Option<f64>,
}

impl Row {
    /// A row without a figure; the version is that of this package.
    pub fn of(bench: &'static str, case: String, subject: impl Into<String>, package: &str) -> Self {
        let version = version::of(package).unwrap_or_default();
        Self { bench, case, subject: subject.into(), version, threads: 1, ..Self::default() }
    }

    pub fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Nanoseconds of the CPU that this process, all of its threads, has had.
pub fn cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// The value below which such a part of them lies, by the nearest rank; they are sorted by this.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle one, and how wide the middle half is.
pub fn middle(mut values: Vec<f64>) -> (f64, f64) {
    let middle = quantile(&mut values, 0.5);
    (middle, quantile(&mut values, 0.75) - quantile(&mut values, 0.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_middle_half() {
        let (value, spread) = middle(vec![9.0, 1.0, 3.0, 2.0, 100.0, 4.0, 5.0, 7.0]);
        assert!((value - 4.0).abs() < 1e-9 && (spread - 5.0).abs() < 1e-9, "{value} {spread}");
        assert!(middle(Vec::new()).0.is_nan());
    }

    #[test]
    fn time_on_the_cpu_passes_while_we_use_it() {
        let begin = cpu_nanos();
        while cpu_nanos() == begin {
            std::hint::spin_loop();
        }
    }
}
