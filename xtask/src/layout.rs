//! What the layout promises, checked: a file holds one idea, and what decides does no I/O.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use fusebox_cluster::process::Exec;

/// The most lines of a file, its tests included.
const MAX_LINES: usize = 500;

/// Files, and folders of files, that decide: functions of their arguments.
const PURE: [&str; 18] = [
    "policy/src/",
    "operator/src/claims.rs",
    "operator/src/deadman/decide.rs",
    "operator/src/leader/decide.rs",
    "operator/src/model.rs",
    "operator/src/reconcile/conditions.rs",
    "operator/src/reconcile/desired.rs",
    "operator/src/reconcile/enforcement.rs",
    "operator/src/reconcile/plan.rs",
    "operator/src/reconcile/plan/",
    "operator/src/reconcile/shadow.rs",
    "operator/src/reconcile/status.rs",
    "operator/src/reconcile/validate.rs",
    "resilience/src/breaker/",
    "resilience/src/fuse/hot.rs",
    "resilience/src/fuse/terms.rs",
    "resilience/src/limit.rs",
    "resilience/src/rate.rs",
];

/// What a pure file has no use for.
const IMPURE: [&str; 7] =
    ["async ", ".await", "Instant::now", "Timestamp::now", "Client", "std::net", "fastrand"];

/// Fails with every place that breaks a promise.
pub fn check(checkout: &Path) -> Result<()> {
    let files = Exec::new("git").args(["ls-files", "*.rs"]).dir(checkout).output()?;
    let mut broken = Vec::new();
    let mut pure_files = 0;
    for file in files.lines() {
        // A file that is deleted and not yet committed as such.
        let Ok(text) = fs::read_to_string(checkout.join(file)) else { continue };
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!("{file}: {lines} lines; at most {MAX_LINES}, one idea a file"));
        }
        if PURE.iter().any(|pure| file == *pure || (pure.ends_with('/') && file.starts_with(pure))) {
            pure_files += 1;
            broken.extend(
                impurities(&text).map(|(line, what)| format!("{file}:{line}: {what:?} in a pure file")),
            );
        }
    }
    ensure!(
        pure_files >= PURE.len(),
        "{pure_files} pure files found: the list in xtask/src/layout.rs is out of date"
    );
    ensure!(broken.is_empty(), "the layout's promises:\n{}", broken.join("\n"));
    Ok(())
}

/// Lines and words of code that do not belong, up to the file's tests.
fn impurities(text: &str) -> impl Iterator<Item = (usize, &'static str)> + '_ {
    let code = text.lines().take_while(|line| *line != "#[cfg(test)]").enumerate();
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.flat_map(|(n, line)| {
        IMPURE.into_iter().filter(|word| line.contains(word)).map(move |word| (n + 1, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_waits_and_passes_over_comments_and_tests() {
        let text =
            "// async fn\npub async fn a() {}\nlet b = c.await;\n#[cfg(test)]\nmod tests { async fn d() {} }";
        assert_eq!(impurities(text).collect::<Vec<_>>(), [(2, "async "), (3, ".await")]);
    }
}
