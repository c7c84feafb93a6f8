//! What it was measured on, as a class of machine.

use std::fs;
use std::thread;

use fusebox_cluster::process::{Exec, which};

/// A Markdown list, with what the benchmark adds.
pub fn describe(more: &[String]) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    // Before our own build, which is over by the time anything is measured.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    let mut lines = vec![
        format!("{}, {cores} cores", field(&cpuinfo, "model name", ':').unwrap_or("unknown CPU")),
        field(&release, "PRETTY_NAME", '=').unwrap_or("unknown system").trim_matches('"').to_owned(),
        tool("rustc", &["--version"]),
        tool("go", &["version"]),
        if which("taskset").is_some() { "pinned to cores" } else { "**not pinned: no taskset**" }.to_owned(),
    ];
    lines.extend_from_slice(more);
    lines.push(format!("load average before the run: {load}{}", if busy(&load) { BUSY } else { "" }));
    lines.iter().fold(String::new(), |text, line| text + "- " + line + "\n")
}

/// What a tool says of its version.
pub fn tool(name: &str, args: &[&str]) -> String {
    let said = Exec::new(name).args(args).output();
    said.map_or_else(|_| format!("no {name}"), |said| said.trim().to_owned())
}

const BUSY: &str = " (**busy: these figures are not to be quoted**)";

fn busy(load: &str) -> bool {
    load.parse().is_ok_and(|load: f64| load > 0.5)
}

/// The value of the first line `name<separator>value`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_of_cpuinfo_and_os_release() {
        assert_eq!(
            super::field("model\t: 1\nmodel name\t: A CPU: v2\n", "model name", ':'),
            Some("A CPU: v2")
        );
        assert_eq!(super::field("NAME=x\nPRETTY_NAME=\"X 1\"\n", "PRETTY_NAME", '='), Some("\"X 1\""));
    }
}
