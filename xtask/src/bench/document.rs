//! The part of a document that the benchmark writes.

const BEGIN: &str = "<!-- written by `cargo xtask bench library` from here -->";
const END: &str = "<!-- to here -->";

/// The document with the report between its marks; at its end where it has none.
pub fn with_report(document: &str, report: &str) -> String {
    let marked = format!("{BEGIN}\n\n{}\n\n{END}", report.trim());
    let parts = document
        .split_once(BEGIN)
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
        let first = with_report("# Title\n\nWords.\n", "one");
        assert!(first.starts_with("# Title\n\nWords.\n\n<!--") && first.contains("\none\n"));
        let second = with_report(&(first.clone() + "\nMore.\n"), "two");
        assert_eq!(second, first.replace("one", "two") + "\nMore.\n");
        assert!(with_report("", "one").ends_with("-->\n"));
    }
}
