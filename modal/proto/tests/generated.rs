//! The code that is checked in is that of `proto/`.

#[allow(dead_code)]
#[path = "../examples/generate.rs"]
mod generate;

#[test]
fn generated_code_is_current() {
    let generated = generate::code().expect("valid definitions");
    assert!(include_str!("../src/generated.rs") == generated, "src/generated.rs is stale: run `make proto`");
}
