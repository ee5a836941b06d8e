//! `acb` as its users meet it: the built program against the real server.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks and its time")]

mod admin;
mod agents;
mod bus;
mod contexts;
mod dead_letters;
mod identity;
mod messages;
mod request;
mod shapes;
mod shell;
mod streams;
mod subscribe;
