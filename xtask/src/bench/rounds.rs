//! Rows that are measured in turn, so that what the machine does meanwhile meets all alike.

use anyhow::Result;

use super::figure::Figure;
use super::programs::reason;

/// Measures all rows in turn, so many rounds; told which it is. One that fails is not run any more.
pub fn in_turn<T>(
    rows: &mut [Figure],
    rounds: usize,
    mut measure: impl FnMut(usize, &Figure) -> Result<T>,
) -> Vec<Vec<T>> {
    let mut results: Vec<Vec<T>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (n, (row, results)) in rows.iter_mut().zip(&mut results).enumerate() {
            if row.not_run.is_some() {
                continue;
            }
            match measure(n, row) {
                Ok(result) => results.push(result),
                Err(error) => row.not_run = Some(reason(&error)),
            }
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_failed_is_not_measured_again() {
        let mut rows = [Figure::default(), Figure { subject: "bad".into(), ..Figure::default() }];
        let mut asked = Vec::new();
        let results = in_turn(&mut rows, 2, |n, row| {
            asked.push(n);
            anyhow::ensure!(row.subject != "bad", "it is bad");
            Ok(n)
        });
        assert_eq!((asked, results), (vec![0, 1, 0], vec![vec![0, 0], vec![]]));
        assert_eq!(rows[1].not_run.as_deref(), Some("it is bad"));
    }
}
