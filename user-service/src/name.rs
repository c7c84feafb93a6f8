//! What a user may be called.

use std::fmt;

/// The longest name, in characters.
const LONGEST: usize = 64;

/// A name that a user may have: 1 to 64 letters, digits, spaces and `. _ ' -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 letters, digits, spaces and . _ ' - and begins with a letter or digit")]
pub struct InvalidName;

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '.' | '_' | '\'' | '-');
        let begins = text.chars().next().is_some_and(char::is_alphanumeric);
        let valid = begins && text.chars().all(allowed) && text.chars().count() <= LONGEST;
        if valid { Ok(Self(text)) } else { Err(InvalidName) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name() {
        for text in ["Ada", "ada lovelace", "O'Hara", "J.-P.", "José", "李", "7of9", &"a".repeat(64)] {
            assert!(UserName::try_from(text.to_owned()).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = "a".repeat(65);
        for text in ["", " Ada", "-ada", "a/b", "a\nb", "<b>", "a?b", "..", long.as_str()] {
            assert_eq!(UserName::try_from(text.to_owned()), Err(InvalidName), "{text:?}");
        }
    }
}
