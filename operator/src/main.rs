//! The program around the controller.

#[tokio::main]
async fn main() {
    let code = match fusebox_operator::run(std::env::args_os().collect()).await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fusebox-operator ends: {error:#}");
            1
        }
    };
    // At once: a runtime that is dropped waits for a look-up of a name that hangs.
    std::process::exit(code);
}
