//! Writes what is generated from `proto/` to stdout: the code of `src/generated.rs`, or, with the argument
//! `descriptors`, the compiled `google.protobuf.FileDescriptorSet`, comments included.
//!
//! Without protoc: protox parses, tonic generates both sides.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::Path,
};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("descriptors") => io::stdout().write_all(&descriptors()?.encode_to_vec())?,
        _ => io::stdout().write_all(code()?.as_bytes())?,
    }
    Ok(())
}

fn descriptors() -> Result<FileDescriptorSet, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    Ok(protox::compile(["service.proto"], [folder])?)
}

/// The messages, the client and the server.
pub fn code() -> Result<String, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        // Payloads are handed on without copying them.
        .bytes(".")
        // A server implements what it has; everything else answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        .out_dir(folder.path())
        .compile_fds(descriptors()?)?;
    Ok(fs::read_to_string(folder.path().join("modal.client.rs"))?)
}
