//! Writes the compiled descriptors of the subset to stdout, for the test that compares them with the SDK's.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(modal_proto::DESCRIPTORS)
}
