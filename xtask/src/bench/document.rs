//! The part of a document that the benchmark writes.

const END: &str = "<!-- to here -->";

/// The document with the report of `command` between its marks; at its end where it has none.
pub fn with_report(document: &str, command: &str, report: &str) -> String {
    let begin = format!("<!-- written by `{command}` from here -->");
    let marked = format!("{begin}\n\n{}\n\n{END}", report.trim());
    let parts = document
        .split_once(&begin)
        .and_then(|(before, rest)| rest.split_once(END).map(|(_, after)| (before, after)));
    match parts {
        Some((before, after)) => format!("{before}{marked}{after}"),
        None if document.is_empty() => format!("{marked}\n"),
        None => format!("{}\n\n{marked}\n", document.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_is_between_the_marks_and_nothing_else() {
        let with_report = |document: &str, report: &str| with_report(document, "bench x", report);
        let first = with_report("# Title\n\nWords.\n", "one");
        assert!(first.starts_with("# Title\n\nWords.\n\n<!--") && first.contains("\none\n"));
        let second = with_report(&(first.clone() + "\nMore.\n"), "two");
        assert_eq!(second, first.replace("one", "two") + "\nMore.\n");
        assert!(with_report("", "one").ends_with("-->\n"));
        let two = super::with_report(&first, "bench y", "two");
        assert!(two.starts_with(first.trim_end()) && two.contains("\ntwo\n"), "each has its own part");
    }
}
