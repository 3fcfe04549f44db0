//! Compiles `proto/` without protoc: protox parses, tonic generates both sides.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const ROOT: &str = "proto";
const SERVICE: &str = "service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let descriptors = protox::compile([SERVICE], [ROOT])?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Payloads are handed on without copying them.
        .bytes(".")
        // A server implements what it has; everything else answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
