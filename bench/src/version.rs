//! Versions of the libraries, as they were locked when this program was built.

/// The version of a package in `Cargo.lock`.
pub fn of(package: &str) -> Option<&'static str> {
    find(include_str!("../Cargo.lock"), package)
}

fn find<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    lines.find(|line| line.strip_prefix("name = ").is_some_and(|name| name.trim_matches('"') == package))?;
    Some(lines.next()?.strip_prefix("version = ")?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_package_and_no_other() {
        let lock = "[[package]]\nname = \"tower-layer\"\nversion = \"0.3.3\"\n\n[[package]]\nname = \"tower\"\nversion = \"0.5.2\"\n";
        assert_eq!(super::find(lock, "tower"), Some("0.5.2"));
        assert_eq!(super::find(lock, "owe"), None);
    }
}
