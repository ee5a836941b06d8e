//! What a foreign client finds without our proto files: health and reflection.

use std::collections::BTreeSet;

use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{Server, failure};

const SERVICES: [&str; 6] = [
    "acb.v1.AgentRegistry",
    "acb.v1.MessageService",
    "acb.v1.SubscriptionService",
    "acb.v1.DeadLetterService",
    "acb.v1.AuthService",
    "acb.v1.AdminService",
];

#[tokio::test]
async fn health_answers_anybody_for_the_server_and_each_service() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "nope".to_owned() };
    assert_eq!(failure(&health.check(unknown).await.unwrap_err()).status, tonic::Code::NotFound);
}

#[tokio::test]
async fn a_watcher_hears_that_the_server_stops() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.stop());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watch, health));
    stopping.await.unwrap();
}

#[tokio::test]
async fn reflection_shows_every_service_with_all_its_methods() {
    let server = Server::start().await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert!(super::policy::paths().contains(path));
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel());
    let ask = |request| v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    use v1::server_reflection_request::MessageRequest as Q;
    use v1::server_reflection_response::MessageResponse as A;
    let mut questions = vec![ask(Q::ListServices(String::new()))];
    questions.extend(SERVICES.map(|s| ask(Q::FileContainingSymbol(s.to_owned()))));
    let mut answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let Some(A::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response else {
        panic!("no list");
    };
    let names: BTreeSet<String> = list.service.into_iter().map(|s| s.name).collect();
    for service in SERVICES {
        assert!(names.contains(service), "{service} is not in {names:?}");
        let answer = answers.message().await.unwrap().unwrap().message_response;
        let Some(A::FileDescriptorResponse(files)) = answer else { panic!("{answer:?}") };
        let files: Vec<prost_types::FileDescriptorProto> =
            files.file_descriptor_proto.iter().map(|f| prost::Message::decode(f.as_slice()).unwrap()).collect();
        let methods: usize = files
            .iter()
            .flat_map(|f| &f.service)
            .filter(|s| format!("acb.v1.{}", s.name()) == service)
            .map(|s| s.method.len())
            .sum();
        let expected = super::policy::paths().iter().filter(|p| p.starts_with(&format!("/{service}/"))).count();
        assert_eq!(methods, expected, "{service}");
    }
}

#[tokio::test]
async fn older_clients_find_the_older_reflection() {
    let server = Server::start().await;
    let path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    assert!(super::policy::paths().contains(path));
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel());
    use v1alpha::server_reflection_request::MessageRequest as Q;
    let question =
        v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(Q::ListServices(String::new())) };
    let mut answers = client.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("acb.v1.AgentRegistry"), "{answer:?}");
}
