//! How the demo shows itself: what is done as a command, what is seen as its real output.

use anyhow::Result;
use fusebox_cluster::Cluster;
use fusebox_cluster::process::Exec;

/// Prints chapters, commands and outputs.
pub struct Story<'a> {
    cluster: &'a Cluster,
    chapters: std::cell::Cell<u32>,
}

impl<'a> Story<'a> {
    /// A story on a cluster.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, chapters: std::cell::Cell::new(0) }
    }

    /// The cluster it plays on.
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// A heading and one sentence.
    pub fn chapter(&self, title: &str, text: &str) {
        self.chapters.set(self.chapters.get() + 1);
        println!("\n== {}. {title}\n   {text}\n", self.chapters.get());
    }

    /// Runs and shows `kubectl`, its arguments in one line.
    pub fn kubectl(&self, args: &str) -> Result<String> {
        self.kubectl_args(&args.split(' ').collect::<Vec<_>>())
    }

    /// Runs and shows `kubectl`.
    pub fn kubectl_args(&self, args: &[&str]) -> Result<String> {
        let root = &self.cluster.places().checkout;
        let output = self.cluster.tool("kubectl").args(args).dir(root).output()?;
        show(&format!("kubectl {}", quoted(args)), &output);
        Ok(output)
    }
}

/// Runs and shows `curl`.
pub fn curl(args: &[&str]) -> Result<String> {
    let output = quiet_curl(args)?;
    show(&format!("curl {}", quoted(args)), &output);
    Ok(output)
}

/// A sentence between commands.
pub fn say(text: &str) {
    println!("   {text}\n");
}

/// A command and its output.
pub fn show(command: &str, output: &str) {
    println!("$ {command}");
    for line in output.trim_end().lines() {
        println!("  {line}");
    }
    println!();
}

/// Runs `curl` without showing it.
pub fn quiet_curl(args: &[&str]) -> Result<String> {
    Exec::new("curl").args(["-sS", "-m", "30", "--noproxy", "*"]).args(args).output()
}

/// Arguments as a shell would take them.
fn quoted(args: &[&str]) -> String {
    let plain = |arg: &str| arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_=.,:/@%".contains(c));
    let quote = |arg: &&str| if plain(arg) { (*arg).to_owned() } else { format!("'{arg}'") };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}
