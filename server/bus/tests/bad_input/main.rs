//! Bad input and bad clients, against the real program over its real port: each gets the error that the table
//! `conformance/error_codes.yaml` has for it, nothing is half done, and who behaves is served as before.
//!
//! What is proven where. Conformance scenarios run against the real server too and are not repeated here; `it` is this
//! crate's other test binary, whose server runs inside the test.
//!
//! | input | here | and |
//! |---|---|---|
//! | payload over 1 MiB | `messages` | scenario `largest-payload` |
//! | attributes: count, names, values, total, form | `messages` | `it::message` |
//! | ids, keys and names too long or malformed | `messages`, `settling` | scenarios `short-texts-are-short`, `bad-specs-are-refused`, `bad-definitions-are-refused` |
//! | text that is not UTF-8, every text of both hot streams | `messages`, `frames` | `it::edge` (unary) |
//! | numbers that name no member of an enum | `messages`, `frames` | `it::message` |
//! | topics: grammar, wildcards, the bus's own tree | `messages` | scenarios `topics-have-a-grammar`, `reserved-topics-are-closed` |
//! | frames: too many messages, too many bytes, garbage, truncated, out of turn | `frames` | `it::edge` (unary) |
//! | positions: future, another epoch, negative, backwards | `settling` | scenario `status-of-what-is-not-there` |
//! | credits over their bounds | `settling` | |
//! | credit never granted | | scenario `no-credit-no-messages` |
//! | settling what was never leased, another's lease, ranges backwards | `settling` | scenario `late-plain-ack-is-answered-too` |
//! | tokens: expired, forged, revoked, foreign, wrong algorithm, audience, issuer, time, form | `tokens` | `it::auth`; scenarios of `18-identity` |
//! | another's agent id | | scenarios `id-taken-by-another-credential-is-refused`, `registering-anothers-id-is-refused` |
//! | a client that reads one byte a second, or nothing | `clients` | |
//! | a client that floods, by calls and by frames | `clients` | `it::auth` |
//! | 10,000 idle connections | `connections` | `it::edge::connections_are_bounded_and_room_comes_back` |
//! | a handshake that never ends | `connections` | `it::edge::a_connection_that_says_nothing_in_time_is_closed` |
//! | 64 publishes of one idempotency key at once, also over a kill | `idempotency` | scenarios of `11-dedupe` |
//! | clock jumps | | scenarios with `advance`; the engine's own tests |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::result_large_err,
    clippy::cast_precision_loss,
    reason = "tests fail by panicking, own their tasks, and stay plain"
)]

#[path = "../shared/certified.rs"]
mod certified;
mod support;

mod clients;
mod connections;
mod frames;
mod idempotency;
mod messages;
mod settling;
mod tokens;
