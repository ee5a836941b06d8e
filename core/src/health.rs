//! How the server is, by the standard probe (`grpc.health.v1`), which every gRPC server of this kind answers.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::{
    connection::{Core, Link},
    convert,
    error::{Error, ErrorCode, Result},
    retry::Safety,
    transport::grpc::Channel,
};

const PATH: &str = "/grpc.health.v1.Health/Check";

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether it takes work. A server that drains or starts does not.
    pub serving: bool,
    /// How long the question took.
    pub round_trip: Duration,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is SERVING.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn check(
    channel: Channel,
    origin: http::Uri,
    request: Request<CheckRequest>,
) -> Result<Response<CheckResponse>, Status> {
    let mut grpc = tonic::client::Grpc::with_origin(channel, origin);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    grpc.unary(request, PathAndQuery::from_static(PATH), ProstCodec::<CheckRequest, CheckResponse>::default()).await
}

impl Core {
    /// Asks on whatever connection there is.
    pub(crate) async fn health(&self) -> Result<Health> {
        let started = Instant::now();
        let answer = self
            .call("health", Safety::Idempotent, CheckRequest::default(), |to, request| {
                check(to.channel, to.origin, request)
            })
            .await?;
        Ok(Health { serving: answer.status == SERVING, round_trip: started.elapsed() })
    }

    /// Asks on a connection that is not known to be a bus's yet.
    pub(crate) async fn probe(&self, link: &Link) -> Result<()> {
        let answer = check(link.channel.clone(), self.origin().clone(), Request::new(CheckRequest::default())).await;
        match answer {
            Ok(_) => Ok(()),
            // It speaks gRPC: that it does not serve this probe is no reason to turn away.
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(()),
            Err(status) => {
                let error = convert::error_from_status("connect", &status);
                Err(match error.code() {
                    ErrorCode::Internal | ErrorCode::RouteNotFound => {
                        Error::protocol("connect", "whatever answers there is no bus").with_source(error)
                    }
                    _ => error,
                })
            }
        }
    }
}
