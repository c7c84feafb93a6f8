//! An instance of a service, as the real-process simulation runs it: one line on stdout for each policy that
//! comes into force, by number, after two commands have been seen to run under it. It ends, with a goodbye, when
//! its stdin does.

use std::error::Error;
use std::io::{Read, Write};

use fusebox::Fusebox;
use fusebox_simulation::policies::in_force;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let fusebox = Fusebox::from_env().await?;
    let (ends, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(ends);
    });
    let mut known = None;
    loop {
        tokio::select! {
            _ = ended.recv() => break,
            hash = fusebox.policy_other_than(known.as_ref()) => {
                known = hash;
                let number = in_force(&fusebox)?;
                let mut out = std::io::stdout().lock();
                writeln!(out, "{}", number.map_or_else(|| "another".to_owned(), |number| number.to_string()))?;
                out.flush()?;
            }
        }
    }
    fusebox.shutdown().await;
    Ok(())
}
