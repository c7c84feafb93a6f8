//! The program around the controller.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let Err(error) = fusebox_operator::run(std::env::args_os().collect()).await else {
        return std::process::ExitCode::SUCCESS;
    };
    eprintln!("fusebox-operator ends: {error:#}");
    std::process::ExitCode::FAILURE
}
