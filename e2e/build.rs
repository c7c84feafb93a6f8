//! The gRPC client of the sample service.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../user-service/proto";
    println!("cargo:rerun-if-changed={proto}");
    let files = protox::compile(["user/v1/user.proto"], [proto])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
