//! Where the figures of a run go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::document;
use super::figure::Figures;
use super::judged::{Judged, markdown};
use super::table;

/// What every benchmark can be told.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Write every row as JSON, so that ratios can be computed by anyone
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The document whose marked part takes the table [default: of a full run, the benchmark's own in docs/]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A benchmark that has been run.
pub struct Run<'a> {
    /// As it is asked for, and stands in the marks of its document.
    pub name: &'static str,
    /// And with what shapes the figures.
    pub command: &'a str,
    pub machine: &'a str,
    pub targets: &'a [Judged],
    pub figures: &'a Figures,
    /// Its document; None: this run is not to be kept.
    pub document: Option<PathBuf>,
}

impl Output {
    /// Prints the report, and writes what is wanted.
    pub fn take(&self, run: &Run<'_>) -> Result<()> {
        let report = report(run);
        println!("{report}");
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(run.figures.all())?;
            write(path, &(json + "\n"))?;
        }
        let Some(path) = self.out.as_ref().or(run.document.as_ref()) else { return Ok(()) };
        let text = fs::read_to_string(path).unwrap_or_default();
        write(path, &document::with_report(&text, run.name, &report))
    }
}

/// The whole text: how it came about, the targets, the table.
fn report(run: &Run<'_>) -> String {
    let how = format!("Made by `{}` on:\n\n{}", run.command, run.machine);
    let (targets, rows) = (markdown(run.targets), table::markdown(run.figures));
    format!("{how}\n### Targets\n\n{targets}\n### Rows\n\n{rows}")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
