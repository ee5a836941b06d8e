//! Examples of the Agentic Context Bus; each is a program under `src/bin`.

/// The readme's Rust, compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
