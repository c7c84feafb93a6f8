//! One subject once: an etcd, the subject, the writer, and what came of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::etcd::{Etcd, Folder};
use super::latency::{self, Latency};
use crate::bench::child::Running;
use crate::bench::figure::Figure;
use crate::bench::programs::{OTHER, Programs, pinned};

/// What all rounds have in common.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The program.
    pub etcd: &'a Path,
    pub programs: &'a Programs,
    /// How long documents are put that count.
    pub seconds: u32,
}

/// What a subject tells at its end.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Told {
    pub calls: f64,
    pub failed: f64,
    pub torn: f64,
    pub torn_changes: f64,
    pub failure: Option<String>,
    pub in_force: u32,
    pub rss_kib: Option<f64>,
}

/// Of one round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub told: Told,
    pub latency: Latency,
}

const RATE: u32 = 1000;
/// Documents that do not count: those of a second.
const WARM_UP: u32 = RATE;
/// How long the last document is waited for after it was put, in seconds.
const PATIENCE: u32 = 10;

impl Bench<'_> {
    /// Runs it. The subject has core 1 with etcd and the writer; its calls take core 0.
    pub fn round(&self, row: &Figure) -> Result<Round> {
        let folder = Folder::new(self.programs.target.join("feed-run"))?;
        let mut etcd = Etcd::start(self.etcd, &folder)?;
        self.run(row, &folder, &etcd.url).map_err(|error| match etcd.failure(&folder) {
            Some(failure) => anyhow::anyhow!(failure),
            None => error,
        })
    }

    fn run(&self, row: &Figure, folder: &Folder, url: &str) -> Result<Round> {
        let kind = if row.subject.starts_with("viper") { "config" } else { "policy" };
        pinned(OTHER, self.programs.rust()).args(["seed", "--etcd", url, "--kind", kind]).output()?;

        let documents = WARM_UP + RATE * self.seconds;
        let (puts, arrivals, errors) = (folder.file("puts"), folder.file("arrivals"), folder.file("errors"));
        let last = documents.to_string();
        let patience = (documents / RATE + PATIENCE).to_string();
        let out = arrivals.display().to_string();
        let args = ["follow", &row.subject, &row.case, "--etcd", url, "--last", &last];
        let args = [&args[..], &["--patience", &patience, "--out", &out]].concat();
        let mut subject = Running::start(OTHER, self.programs.of(row)?, &args, Some(&errors))?;
        let why = || said(&fs::read_to_string(&errors).unwrap_or_default());
        if subject.line()? != "following" {
            bail!(why().unwrap_or_else(|| "it did not follow".to_owned()));
        }
        let (rate, to) = (RATE.to_string(), puts.display().to_string());
        let args = ["write", "--etcd", url, "--kind", kind, "--puts", &last, "--rate", &rate, "--out", &to];
        let wrong = folder.file("writer-errors");
        // Not by `pinned`: it must end with us, also where we are killed.
        let writer = Running::start(OTHER, self.programs.rust(), &args, Some(&wrong))?;
        writer.end(Duration::from_secs(u64::from(documents / RATE) + 60)).map_err(|error| {
            let why = said(&fs::read_to_string(&wrong).unwrap_or_default());
            anyhow::anyhow!("the writer: {}", why.unwrap_or_else(|| error.to_string()))
        })?;
        let report = subject.end(Duration::from_mins(1));
        let (puts, arrivals) = (fs::read_to_string(puts)?, fs::read_to_string(arrivals).unwrap_or_default());
        let report = report.map_err(|error| {
            let why = why().unwrap_or_else(|| error.to_string());
            anyhow::anyhow!(match latency::survived(&puts, &arrivals) {
                Some(millis) => format!("it ended {millis:.0} ms after the first put: {why}"),
                None => why,
            })
        })?;
        let told: Told = serde_json::from_str(report.trim()).context("not a report")?;
        ensure!(
            told.in_force == documents,
            "document {} of {documents} was in force at the end",
            told.in_force
        );
        Ok(Round { latency: latency::measure(&puts, &arrivals, WARM_UP)?, told })
    }
}

/// The line in which a program says why it ends.
fn said(errors: &str) -> Option<String> {
    let mut lines = errors.lines().map(str::trim);
    lines
        .find(|line| ["error:", "Error:", "fatal error:"].iter().any(|start| line.starts_with(start)))
        .map(|line| line.trim_start_matches("error: ").trim_start_matches("Error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_why_it_ends() {
        let go = "\nfatal error: concurrent map read and map write\n\ngoroutine 8 [running]:\n";
        assert_eq!(said(go).as_deref(), Some("fatal error: concurrent map read and map write"));
        assert_eq!(said("Error: no policy came\n").as_deref(), Some("no policy came"));
        assert_eq!(said("warning: x\n"), None);
    }

    #[test]
    fn a_report_of_either_program_is_read() {
        let ours =
            r#"{"calls":5,"failed":1,"torn":0,"torn_changes":0,"failure":"x","in_force":7,"rss_kib":9}"#;
        let told: Told = serde_json::from_str(ours).unwrap();
        assert_eq!((told.in_force, told.failure.as_deref()), (7, Some("x")));
        let go = r#"{"calls":5,"failed":1,"torn":0,"torn_changes":0,"in_force":7,"rss_kib":null}"#;
        assert!(serde_json::from_str::<Told>(go).is_ok_and(|told| told.rss_kib.is_none()));
    }
}
