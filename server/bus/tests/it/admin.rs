//! `AdminService`, and the admin listener beside it.

use std::time::Duration;

use acb_proto::v1;
use acb_types::ErrorCode;

use crate::support::{Server, Setup, http, message, refused, told};

#[tokio::test]
async fn tenants_are_made_once_and_listed_by_id() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let create = |id: &str, name: &str| {
        let request = v1::CreateTenantRequest { id: id.to_owned(), name: name.to_owned() };
        let admin = admin.clone();
        async move { told(admin.admin().create_tenant(request).await).map(|r| r.tenant.unwrap()) }
    };
    let made = create("blue", "Blue").await.unwrap();
    assert_eq!((made.id.as_str(), made.name.as_str(), made.created_at_ms), ("blue", "Blue", server.clock_ms()));
    create("amber", "").await.unwrap();
    assert_eq!(refused(create("blue", "Again").await), ErrorCode::TenantExists);
    assert_eq!(refused(create("Blue", "").await), ErrorCode::InvalidName);
    assert_eq!(refused(create("", "").await), ErrorCode::MissingField);
    assert_eq!(refused(create("green", &"x".repeat(129)).await), ErrorCode::FieldTooLarge);
    let page = |token: &str| {
        let request = v1::ListTenantsRequest { page_size: 2, page_token: token.to_owned() };
        let admin = admin.clone();
        async move { told(admin.admin().list_tenants(request).await).unwrap() }
    };
    let ids = |page: &v1::ListTenantsResponse| page.tenants.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    let first = page("").await;
    assert_eq!(ids(&first), ["amber", "blue"]);
    let rest = page(&first.next_page_token).await;
    assert_eq!((ids(&rest), rest.next_page_token.as_str()), (vec!["default".to_owned()], ""));
    // It can be used at once.
    let key = admin.new_key("blue", "", &[]).await;
    server.login(&key, "a").await.0.send(message("t", "x")).await.unwrap();
    let nowhere = v1::CreateEnrolmentKeyRequest { tenant_id: "nowhere".to_owned(), ..Default::default() };
    assert_eq!(refused(told(admin.admin().create_enrolment_key(nowhere).await)), ErrorCode::TenantNotFound);
}

#[tokio::test]
async fn keys_are_shown_once_and_listed_without_themselves() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let request = v1::CreateEnrolmentKeyRequest {
        label: "workers".to_owned(),
        agent_pattern: "worker-*".to_owned(),
        roles: vec!["agent-consumer".to_owned(), "agent-producer".to_owned()],
        ttl_ms: 60_000,
        ..v1::CreateEnrolmentKeyRequest::default()
    };
    let made = told(admin.admin().create_enrolment_key(request).await).unwrap();
    assert!(made.enrolment_key.starts_with("acb_default_"));
    let key = made.key.unwrap();
    assert_eq!((key.label.as_str(), key.agent_pattern.as_str()), ("workers", "worker-*"));
    assert_eq!(key.roles, ["agent-producer", "agent-consumer"]);
    assert_eq!(key.expires_at_ms, server.clock_ms() + 60_000);
    let listed = || async {
        told(admin.admin().list_enrolment_keys(v1::ListEnrolmentKeysRequest::default()).await).unwrap().keys
    };
    let keys = listed().await;
    assert_eq!(keys.len(), 2, "the first admin's and this one");
    assert_eq!(keys[1], key);
    let revoke = v1::RevokeEnrolmentKeyRequest { key_id: key.key_id.clone() };
    told(admin.admin().revoke_enrolment_key(revoke).await).unwrap();
    assert!(listed().await[1].revoked);
    for (change, code) in [
        (v1::CreateEnrolmentKeyRequest { label: "x".repeat(129), ..Default::default() }, ErrorCode::FieldTooLarge),
        (
            v1::CreateEnrolmentKeyRequest { agent_pattern: "A*".to_owned(), ..Default::default() },
            ErrorCode::InvalidArgument,
        ),
        (
            v1::CreateEnrolmentKeyRequest { roles: vec!["king".to_owned()], ..Default::default() },
            ErrorCode::InvalidArgument,
        ),
    ] {
        assert_eq!(refused(told(admin.admin().create_enrolment_key(change).await)), code);
    }
    assert_eq!(listed().await.len(), 2, "nothing was half done");
    let none = v1::RevokeEnrolmentKeyRequest::default();
    assert_eq!(refused(told(admin.admin().revoke_enrolment_key(none).await)), ErrorCode::MissingField);
    let absent = v1::RevokeEnrolmentKeyRequest { key_id: "absent".to_owned() };
    told(admin.admin().revoke_enrolment_key(absent).await).unwrap();
    let none = v1::SetAgentSecretRequest::default();
    assert_eq!(refused(told(admin.admin().set_agent_secret(none).await)), ErrorCode::MissingField);
}

#[tokio::test]
async fn the_first_start_makes_one_admin_key_and_no_later_start_another() {
    let server = Server::start().await;
    let first = server.admin_key.clone();
    assert!(first.starts_with("acb_default_"));
    let server = server.restart().await;
    assert_eq!(server.admin_key, first, "a later start made another");
    server.login(&first, "admin").await;
    assert!(Setup::dev().start().await.admin_key.is_empty());
}

#[tokio::test]
async fn the_admin_listener_tells_life_readiness_version_and_metrics() {
    let server = Server::start().await;
    let get = |path| http(server.admin_address(), "GET", path);
    let live = get("/live").await;
    assert!(live.status == 200 && live.body.contains("live"), "{live:?}");
    assert_eq!(get("/ready").await.status, 200);
    assert!(get("/version").await.body.contains(env!("CARGO_PKG_VERSION")));
    let metrics = get("/metrics").await;
    assert!(metrics.head.contains("content-type: application/openmetrics-text"), "{}", metrics.head);
    assert!(metrics.body.contains("acb_build_info{version=\"") && metrics.body.contains("# EOF"), "{}", metrics.body);
    assert_eq!(get("/nothing").await.status, 404);
    // Nothing of it is on the clients' port, and no clock can be moved without the switch.
    assert_eq!(http(server.address(), "GET", "/metrics").await.status, 404);
    assert_eq!(http(server.admin_address(), "POST", "/advance?ms=5").await.status, 404);
    assert_eq!(http(server.admin_address(), "POST", "/wall?ms=5").await.status, 404);
}

#[tokio::test]
async fn with_a_manual_clock_time_goes_on_when_it_is_told_to() {
    let server = Setup::dev().start().await;
    let before = server.clock_ms();
    let answer = http(server.admin_address(), "POST", "/advance?ms=1500").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(&format!("\"wall_ms\":{}", before + 1500)), "{answer:?}");
    assert_eq!(server.clock_ms(), before + 1500);
    for bad in ["/advance", "/advance?ms=-1", "/advance?ms=1&x=2"] {
        assert_eq!(http(server.admin_address(), "POST", bad).await.status, 400, "{bad}");
    }
    assert_eq!(http(server.admin_address(), "GET", "/advance?ms=1").await.status, 405);
    server.advance(Duration::from_millis(1));
    assert_eq!(server.clock_ms(), before + 1501);
}

#[tokio::test]
async fn with_a_manual_clock_the_wall_can_be_set_without_time_going_by() {
    let server = Setup::dev().start().await;
    let start = server.clock_ms();
    for wall in [start + 3_600_000, start - 3_600_000] {
        let answer = http(server.admin_address(), "POST", &format!("/wall?ms={wall}")).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(&format!("\"wall_ms\":{wall}")), "{answer:?}");
        assert!(answer.body.contains("\"mono_ms\":0"), "no time has gone by: {answer:?}");
        assert_eq!(server.clock_ms(), wall);
    }
    for bad in ["/wall", "/wall?ms=-1", "/wall?ms=1&x=2"] {
        assert_eq!(http(server.admin_address(), "POST", bad).await.status, 400, "{bad}");
    }
    assert_eq!(http(server.admin_address(), "GET", "/wall?ms=1").await.status, 405);
}

#[tokio::test]
async fn every_metric_is_in_the_catalogue_and_every_line_of_it_is_scraped() {
    use acb_server::telemetry::catalogue::{CATALOGUE, Kind};
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(crate::support::spec("a")).await.unwrap();
    bus.send(message("t", "x")).await.unwrap();
    let _ = bus.get_agent("nobody").await;
    let text = server.metrics().await;
    let kind_of = |name: &str| {
        let name = name.strip_suffix("_total").unwrap_or(name);
        text.lines().find_map(|l| l.strip_prefix(&format!("# TYPE {name} ")).map(str::to_owned))
    };
    for line in CATALOGUE {
        let kind = match line.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(kind_of(line.name).as_deref(), Some(kind), "{} is not scraped", line.name);
        for label in line.labels {
            let series = text.lines().find(|l| l.starts_with(line.name) && l.contains('{'));
            assert!(
                series.is_some_and(|s| s.contains(&format!("{label}=\""))),
                "{}: {series:?} lacks {label}",
                line.name
            );
        }
    }
    assert!(text.contains("le=\"+Inf\"") && text.contains("le=\"0.0002\""), "{text}");
    let known = text.lines().filter(|l| l.starts_with("# TYPE")).count();
    assert_eq!(known, CATALOGUE.len(), "a metric is not in the catalogue");
}
