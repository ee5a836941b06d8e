//! Makes cargo choose the same features for a part of the workspace as for all of it with its tests, so that both share
//! what is built: the simulation, the Python client's wheel for tests, and the programs of `make build`, `make run-server` and
//! `make demo` depend on this crate. What is built for release does not. `cargo xtask tidy` says when a feature is missing
//! here.
