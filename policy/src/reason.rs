//! Why an endpoint was ejected, in the words that a reader may show to others than the one who wrote them.

/// The longest that can be meant: three numbers in the longest of [`KNOWN`].
const MAX_BYTES: usize = 100;

/// `#` stands for a number.
const KNOWN: [&str; 6] = [
    "# % errors of # calls",
    "# failures in a row",
    "# % of # calls took # ms or longer",
    "the sleep window is over",
    "a probe failed",
    "a probe took too long",
];

/// Is it one of the reasons that this version of the library gives for an ejection? Anything else may be anything.
pub fn is_known(reason: &str) -> bool {
    if reason.len() > MAX_BYTES {
        return false;
    }
    let mut shape = String::with_capacity(reason.len());
    for char in reason.chars() {
        match char {
            '#' => return false,
            '0'..='9' if shape.ends_with('#') => {}
            '0'..='9' => shape.push('#'),
            other => shape.push(other),
        }
    }
    KNOWN.contains(&shape.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_free_and_words_are_not() {
        for known in
            ["5 failures in a row", "30 % errors of 40 calls", "100 % of 7 calls took 2000 ms or longer"]
        {
            assert!(is_known(known), "{known}");
        }
        let long = format!("{} failures in a row", "9".repeat(MAX_BYTES));
        for unknown in
            ["", "5", "# failures in a row", "5 failures in a row; run this", "５ failures in a row", &long]
        {
            assert!(!is_known(unknown), "{unknown}");
        }
    }
}
