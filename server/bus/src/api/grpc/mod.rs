//! gRPC: one file a service, each translating and nothing more. What all calls share is in [`call`].

mod admin;
mod agent;
mod auth;
pub mod call;
pub mod codec;
mod consume;
mod context;
mod dead_letter;
pub mod hot;
mod message;
mod publish_stream;
pub mod status;
mod stream;
pub mod subscription;
pub mod untyped;

use std::sync::Arc;

use acb_proto::v1;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{api::grpc::call::Grpc, app::App, error::AppError, tasks::Tasks};

/// Names of the services that health speaks of, the empty one being the server as a whole.
const SERVICES: [&str; 9] = [
    "",
    "acb.v1.AgentRegistry",
    "acb.v1.MessageService",
    "acb.v1.SubscriptionService",
    "acb.v1.DeadLetterService",
    "acb.v1.ContextService",
    "acb.v1.AuthService",
    "acb.v1.AdminService",
    "acb.v1.StreamService",
];

/// Tells `grpc.health.v1` whether the server serves.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Says so for every service; watchers are told.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// The routes of all services but the two hot methods, and the switch of their health.
///
/// # Errors
/// `internal` when the contract's descriptor does not parse.
pub fn routes(app: &Arc<App>, tasks: &Tasks) -> Result<(axum::Router, Health), AppError> {
    let grpc = Grpc::new(Arc::clone(app), tasks.clone());
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(acb_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |e: tonic_reflection::server::Error| AppError::internal("reflection").caused_by(e);
    let routes = Routes::from(axum::Router::new())
        .add_service(v1::agent_registry_server::AgentRegistryServer::new(grpc.clone()))
        .add_service(v1::message_service_server::MessageServiceServer::new(grpc.clone()))
        .add_service(v1::subscription_service_server::SubscriptionServiceServer::new(grpc.clone()))
        .add_service(v1::dead_letter_service_server::DeadLetterServiceServer::new(grpc.clone()))
        .add_service(v1::context_service_server::ContextServiceServer::new(grpc.clone()))
        .add_service(v1::auth_service_server::AuthServiceServer::new(grpc.clone()))
        .add_service(v1::admin_service_server::AdminServiceServer::new(grpc.clone()))
        .add_service(
            v1::stream_service_server::StreamServiceServer::new(grpc)
                .max_decoding_message_size(stream::FRAME_BYTES_MAX),
        )
        .add_service(health)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok((routes.into_axum_router(), Health(reporter)))
}
