//! B1 to B4 and the tax of reloads: rows that a program measures by itself.

use anyhow::Result;
use fusebox_cluster::Progress;
use fusebox_cluster::process::which;

use super::figure::{Figure, Figures};
use super::programs::{Programs, reason};
use super::{Effort, callgrind, stats};

/// Runs what is wanted, case by case.
pub fn run(
    programs: &Programs,
    effort: Effort,
    progress: Progress,
    wanted: impl Fn(&str) -> bool,
) -> Result<Figures> {
    let rows = programs.list()?.into_iter().filter(|row| row.server.is_none() && wanted(&row.bench));
    let mut cases: Vec<Vec<Figure>> = Vec::new();
    for row in rows {
        let same = cases.iter_mut().find(|case| {
            case.first().is_some_and(|first| first.bench == row.bench && first.case == row.case)
        });
        match same {
            Some(case) => case.push(row),
            None => cases.push(vec![row]),
        }
    }
    let mut figures = Figures::default();
    for case in cases {
        let name = case.first().map(|row| format!("{} {}", row.bench, row.case)).unwrap_or_default();
        let measured = progress.step(&name, || Ok(measure(programs, effort, case)))?;
        figures.extend(measured);
    }
    figures.extend(tax(&figures));
    Ok(figures)
}

/// One case: its rows in turn, round by round, so that what the machine does meanwhile meets all alike.
fn measure(programs: &Programs, effort: Effort, mut rows: Vec<Figure>) -> Vec<Figure> {
    let mut values = vec![Vec::new(); rows.len()];
    let counted = rows.iter().all(|row| row.bench == "B4");
    // What is counted is no better for being counted again.
    for _ in 0..if counted { 1 } else { effort.rounds } {
        for (row, values) in rows.iter_mut().zip(&mut values).filter(|(row, _)| row.not_run.is_none()) {
            let args = if counted {
                ["--iters", effort.outcomes[usize::from(row.go)]]
            } else {
                ["--samples", effort.samples]
            };
            match programs.row(row, &args) {
                Ok(measured) => {
                    values.extend(measured.value);
                    row.allocs = measured.allocs.or(row.allocs);
                }
                Err(error) => row.not_run = Some(reason(&error)),
            }
        }
    }
    for (row, values) in rows.iter_mut().zip(&values).filter(|(row, _)| row.not_run.is_none()) {
        row.value = stats::median(values);
        row.spread = stats::spread(values).filter(|_| !counted);
        row.ns = row.value.filter(|_| row.unit == "ns/op");
        // Go's runtime does not bear callgrind; the other rows are these again, or of two threads.
        if !row.go && ["B1", "B2"].contains(&row.bench.as_str()) && which("valgrind").is_some() {
            row.instructions = callgrind::instructions(programs, row.row()).ok();
        }
    }
    rows
}

/// What reloads cost a call, as a row of its own.
fn tax(figures: &Figures) -> Option<Figure> {
    let still = figures.get("reload", "still", "fusebox")?;
    let under = figures.get("reload", "1000-per-second", "fusebox")?;
    let value = under.value? - still.value?;
    Some(Figure {
        case: "tax".to_owned(),
        value: Some(value),
        ns: Some(value),
        spread: None,
        allocs: None,
        ..under.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figure::tests::ns;

    #[test]
    fn the_tax_is_the_difference() {
        let figures = Figures::from_iter([
            ns("reload", "still", "fusebox", 8.0),
            ns("reload", "1000-per-second", "fusebox", 8.5),
        ]);
        assert_eq!(tax(&figures).and_then(|tax| tax.value), Some(0.5));
        assert_eq!(tax(&Figures::default()), None);
    }
}
