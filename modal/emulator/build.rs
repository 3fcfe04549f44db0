//! The migrations are compiled in: a new file there is a change here.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
