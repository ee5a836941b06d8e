//! Does nothing: without it cargo would not look at what builds need.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
