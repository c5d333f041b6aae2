//! Compiles the protos with protox: no protoc on the machine is needed.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=synap");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut all = Vec::new();
    for context in ["content", "entity", "event", "gateway"] {
        let files = protos_in(&Path::new("synap").join(context).join("v1"))?;
        // What the reflection of one service shows: its own package, and what that imports.
        fs::write(out.join(context).with_extension("bin"), compiled(&files)?.encode_to_vec())?;
        all.extend(files);
    }
    tonic_prost_build::configure().bytes(".").compile_fds(compiled(&all)?)?;
    Ok(())
}

fn protos_in(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir(directory)?;
    let mut files =
        entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

fn compiled(files: &[PathBuf]) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["."])?;
    // Comments are part of what reflection shows.
    compiler.include_imports(true).include_source_info(true);
    Ok(compiler.open_files(files)?.file_descriptor_set())
}
