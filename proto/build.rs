//! Compiles the protos with protox: no protoc on the machine is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 9] = [
    "synap/content/v1/content.proto",
    "synap/entity/v1/adoption.proto",
    "synap/entity/v1/entity.proto",
    "synap/event/v1/admin.proto",
    "synap/event/v1/event.proto",
    "synap/event/v1/legacy.proto",
    "synap/gateway/v1/activity.proto",
    "synap/gateway/v1/files.proto",
    "synap/gateway/v1/gateway.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::Compiler::new(["."])?
        .include_imports(true)
        // Comments are part of what reflection shows.
        .include_source_info(true)
        .open_files(FILES)?
        .file_descriptor_set();

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
