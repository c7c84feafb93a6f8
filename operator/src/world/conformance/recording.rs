//! What was answered, line by line.

use std::path::PathBuf;

/// The answers to some scripts: a headline for each, then a line for each step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recording(Vec<String>);

impl Recording {
    /// A script begins.
    pub fn script(&mut self, name: &str) {
        self.0.push(format!("## {name}"));
    }

    /// A step and its answer.
    pub fn step(&mut self, step: &str, answer: &str) {
        let answer = if answer.is_empty() { "nothing" } else { answer };
        self.0.push(format!("{step}\n    {answer}"));
    }

    /// How many steps it has.
    pub fn steps(&self) -> usize {
        self.0.iter().filter(|line| !line.starts_with("## ")).count()
    }

    /// Is it in an answer?
    pub fn tells(&self, words: &str) -> bool {
        let mut answers = self.0.iter().filter_map(|step| step.split_once('\n'));
        answers.any(|(_, answer)| answer.contains(words))
    }

    /// Panics at the first step where `self`, which `who` gave, differs from what the server gave.
    pub fn must_be(&self, server: &Self, who: &str) {
        let both = self.0.iter().zip(&server.0);
        let same = both.take_while(|(mine, theirs)| mine == theirs).count();
        if self == server {
            return;
        }
        let script = server.0[..same].iter().rposition(|line| line.starts_with("## ")).unwrap_or_default();
        let before = server.0[script..same].join("\n");
        let next = |of: &Self| of.0.get(same).cloned().unwrap_or_default();
        panic!("{before}\n{who}:\n{}\nthe server:\n{}", next(self), next(server));
    }

    /// What a server gave once.
    pub fn kept(name: &str) -> Self {
        let path = path(name);
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            match lines.last_mut() {
                Some(step) if line.starts_with("    ") => *step = format!("{step}\n{line}"),
                _ => lines.push(line.to_owned()),
            }
        }
        Self(lines)
    }

    /// Compares what a server gives now with what it gave once, or keeps it.
    pub fn must_be_kept(&self, name: &str) {
        if std::env::var_os("FUSEBOX_RECORD").is_some_and(|record| record == "1") {
            std::fs::write(path(name), self.0.join("\n") + "\n").unwrap();
        }
        Self::kept(name).must_be(self, "the recording");
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/world/conformance/recordings")
        .join(format!("{name}.txt"))
}
