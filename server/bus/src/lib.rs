//! The server of the Agentic Context Bus, as a library: `acb-server` is this and a few lines.

pub mod app;
pub mod auth;
#[cfg(not(feature = "placeholder"))]
pub mod delivery;
#[cfg(feature = "placeholder")]
#[path = "placeholder.rs"]
pub mod delivery;
pub mod domain;
pub mod error;
pub mod presence;
pub mod request_id;
pub mod telemetry;

pub mod api {
    //! The edges.
    pub mod grpc {
        //! gRPC.
        pub mod codec;
        mod consume;
        pub mod hot;
        mod publish_stream;
        pub mod status;
    }
}
