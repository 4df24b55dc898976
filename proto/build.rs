//! Compiles the `.proto` files with protox, so that no `protoc` binary is needed.

const FILES: [&str; 3] = ["echo.proto", "foreign.proto", "testing.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
