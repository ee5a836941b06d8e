//! Identity: keys and secrets to tokens, tokens to calls, and all the ways in which that must not work.

use std::time::Duration;

use acb_proto::v1;
use acb_server::auth::keyring::{Keyring, new_signing_key};
use acb_types::{ErrorCode, Timestamp};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::support::{Client, Failure, Server, Setup, refused, spec, told};

async fn logout(client: &Client) -> Result<v1::LogoutResponse, Failure> {
    told(client.auth().logout(v1::LogoutRequest {}).await)
}

async fn set_secret(admin: &Client, agent: &str, roles: &[&str]) -> String {
    let request = v1::SetAgentSecretRequest {
        agent_id: agent.to_owned(),
        roles: roles.iter().map(ToString::to_string).collect(),
    };
    told(admin.admin().set_agent_secret(request).await).unwrap().secret
}

async fn login_by_secret(server: &Server, tenant: &str, agent: &str, secret: &str) -> Result<v1::Tokens, Failure> {
    let request = v1::LoginRequest {
        agent_id: agent.to_owned(),
        secret: secret.to_owned(),
        tenant_id: tenant.to_owned(),
        ..v1::LoginRequest::default()
    };
    told(server.anybody().auth().login(request).await).map(|r| r.tokens.unwrap())
}

/// Whether a token is good for a call that everybody may make.
async fn good(server: &Server, token: &str) -> Result<(), ErrorCode> {
    match server.with_token(token).discover(v1::DiscoverAgentsRequest::default()).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.code()),
    }
}

#[tokio::test]
async fn a_key_gives_tokens_of_its_tenant_and_roles() {
    let server = Server::start().await;
    let (admin, tokens) = server.login(&server.admin_key, "root").await;
    assert_eq!((tokens.tenant_id.as_str(), tokens.agent_id.as_str()), ("default", "root"));
    assert_eq!(tokens.roles, ["admin"]);
    assert_eq!(tokens.access_expires_at_ms, server.clock_ms() + 3_600_000);
    assert_eq!(tokens.refresh_expires_at_ms, server.clock_ms() + 7 * 86_400_000);
    // An agent's roles are the default of a key.
    let key = admin.new_key("", "worker-*", &[]).await;
    let (_, tokens) = server.login(&key, "worker-1").await;
    assert_eq!(tokens.roles, ["agent-full"]);
    assert!(server.metrics().await.contains("acb_logins_total 2"));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_login_the_answer_is_one() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let key = admin.new_key("", "worker-*", &[]).await;
    let (head, tail) = key.split_at(key.len() - 4);
    let other_tenant = key.replacen("_default_", "_nobody_", 1);
    let ended = v1::CreateEnrolmentKeyRequest { ttl_ms: 1000, ..Default::default() };
    let ended = told(admin.admin().create_enrolment_key(ended).await).unwrap().enrolment_key;
    let revoked = v1::CreateEnrolmentKeyRequest::default();
    let revoked = told(admin.admin().create_enrolment_key(revoked).await).unwrap();
    let request = v1::RevokeEnrolmentKeyRequest { key_id: revoked.key.unwrap().key_id };
    told(admin.admin().revoke_enrolment_key(request).await).unwrap();
    server.advance(Duration::from_secs(1));
    for (what, key, agent) in [
        ("a pattern that does not allow", key.as_str(), "planner"),
        ("another secret", &format!("{head}AAAA"), "worker-1"),
        ("a cut key", head, "worker-1"),
        ("another tenant", &other_tenant, "worker-1"),
        ("no key at all", "hello", "worker-1"),
        ("an ended key", &ended, "worker-1"),
        ("a revoked key", &revoked.enrolment_key, "worker-1"),
    ] {
        let failure = server.anybody().login(key, agent).await.expect_err(what);
        assert_eq!(failure.code(), ErrorCode::InvalidCredentials, "{what}");
        assert_eq!(failure.error.message, ErrorCode::InvalidCredentials.meaning(), "{what} is told apart");
    }
    assert!(!tail.is_empty());
    server.anybody().login(&key, "worker-1").await.unwrap();
    let secret = set_secret(&admin, "planner", &[]).await;
    for (what, tenant, agent, secret) in [
        ("another secret", "", "planner", "AAAA"),
        ("an absent agent", "", "nobody", secret.as_str()),
        ("an absent tenant", "nowhere", "planner", &secret),
        ("a huge secret", "", "planner", &"x".repeat(100_000)),
    ] {
        let failure = login_by_secret(&server, tenant, agent, secret).await.expect_err(what);
        assert_eq!(failure.code(), ErrorCode::InvalidCredentials, "{what}");
    }
    let tokens = login_by_secret(&server, "", "planner", &secret).await.unwrap();
    assert_eq!(tokens.roles, ["agent-full"]);
}

#[tokio::test]
async fn a_login_that_cannot_be_one_says_what_is_missing() {
    let server = Server::start().await;
    let login = |agent_id: &str, key: &str, secret: &str| {
        let request = v1::LoginRequest {
            agent_id: agent_id.to_owned(),
            enrolment_key: key.to_owned(),
            secret: secret.to_owned(),
            tenant_id: String::new(),
        };
        let client = server.anybody();
        async move { refused(told(client.auth().login(request).await)) }
    };
    assert_eq!(login("", "acb_x", "").await, ErrorCode::MissingField);
    assert_eq!(login("a", "", "").await, ErrorCode::MissingField);
    assert_eq!(login("a", "acb_x", "s").await, ErrorCode::InvalidArgument);
    assert_eq!(login("A", "acb_x", "").await, ErrorCode::InvalidName);
    assert_eq!(refused(server.anybody().refresh("").await), ErrorCode::MissingField);
}

#[tokio::test]
async fn calls_without_a_good_token_are_refused_by_what_is_wrong() {
    let server = Server::start().await;
    let (_, tokens) = server.login(&server.admin_key, "admin").await;
    let nobody = server.anybody();
    assert_eq!(refused(nobody.discover(v1::DiscoverAgentsRequest::default()).await), ErrorCode::Unauthenticated);
    assert_eq!(good(&server, &tokens.access_token).await, Ok(()));
    assert_eq!(good(&server, "").await, Err(ErrorCode::TokenInvalid));
    assert_eq!(good(&server, "a.b.c").await, Err(ErrorCode::TokenInvalid));
    assert_eq!(good(&server, &tokens.refresh_token).await, Err(ErrorCode::TokenInvalid));
    // One claim changed.
    let mut parts: Vec<String> = tokens.access_token.split('.').map(str::to_owned).collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.replace("\"default\"", "\"victim\""));
    assert_eq!(good(&server, &parts.join(".")).await, Err(ErrorCode::TokenInvalid));
    // Another algorithm over the same claims: the public key as an HMAC secret, and none at all.
    let jwks = told(nobody.auth().get_jwks(v1::GetJwksRequest {}).await).unwrap().jwks_json;
    let jwks: serde_json::Value = serde_json::from_str(&jwks).unwrap();
    assert_eq!((&jwks["keys"][0]["kty"], &jwks["keys"][0]["crv"]), (&"OKP".into(), &"Ed25519".into()));
    let public = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(jwks["keys"][0]["kid"].as_str().unwrap().to_owned());
    let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
    let forged = jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&public)).unwrap();
    assert_eq!(good(&server, &forged).await, Err(ErrorCode::TokenInvalid));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let none = format!("{none}.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()));
    assert_eq!(good(&server, &none).await, Err(ErrorCode::TokenInvalid));
}

#[tokio::test]
async fn a_token_of_another_server_is_refused_also_under_our_key_id() {
    let (ours, theirs) = (Server::start().await, Server::start().await);
    let (_, tokens) = theirs.login(&theirs.admin_key, "admin").await;
    assert_eq!(good(&theirs, &tokens.access_token).await, Ok(()));
    assert_eq!(good(&ours, &tokens.access_token).await, Err(ErrorCode::TokenInvalid));
    // A key of the attacker's own, named as ours is.
    let jwks = told(ours.anybody().auth().get_jwks(v1::GetJwksRequest {}).await).unwrap().jwks_json;
    let jwks: serde_json::Value = serde_json::from_str(&jwks).unwrap();
    let kid = jwks["keys"][0]["kid"].as_str().unwrap().to_owned();
    let (_, tokens) = ours.login(&ours.admin_key, "admin").await;
    let claims = URL_SAFE_NO_PAD.decode(tokens.access_token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let now = Timestamp(ours.clock_ms());
    let ring = Keyring::new(claims["iss"].as_str().unwrap().to_owned(), &[new_signing_key(kid, now).unwrap()]).unwrap();
    let admin = acb_server::auth::Principal {
        tenant: "default".parse().unwrap(),
        agent: "admin".parse().unwrap(),
        roles: acb_server::auth::Roles::ALL,
        credential: "key:x".parse().unwrap(),
        family: "f".into(),
    };
    let forged = ring.sign(&admin, now, now.after(Duration::from_secs(60)), "t".to_owned()).unwrap();
    assert_eq!(good(&ours, &forged).await, Err(ErrorCode::TokenInvalid));
}

#[tokio::test]
async fn an_access_token_ends_and_a_refresh_token_brings_the_next() {
    let server = Server::start().await;
    let (_, first) = server.login(&server.admin_key, "admin").await;
    server.advance(Duration::from_millis(3_599_999));
    assert_eq!(good(&server, &first.access_token).await, Ok(()));
    server.advance(Duration::from_millis(1));
    assert_eq!(good(&server, &first.access_token).await, Err(ErrorCode::TokenExpired));
    let second = server.anybody().refresh(&first.refresh_token).await.unwrap();
    assert_eq!(good(&server, &second.access_token).await, Ok(()));
    assert_eq!((second.agent_id.as_str(), &second.roles), ("admin", &first.roles));
    assert_ne!(second.refresh_token, first.refresh_token);
    // The chain goes on for as long as it is used, and ends seven days after its last use.
    server.advance(Duration::from_secs(6 * 86_400));
    let third = server.anybody().refresh(&second.refresh_token).await.unwrap();
    server.advance(Duration::from_secs(7 * 86_400));
    assert_eq!(refused(server.anybody().refresh(&third.refresh_token).await), ErrorCode::InvalidCredentials);
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_whole_family_and_no_other() {
    let server = Server::start().await;
    let (_, first) = server.login(&server.admin_key, "admin").await;
    let (_, bystander) = server.login(&server.admin_key, "admin").await;
    let second = server.anybody().refresh(&first.refresh_token).await.unwrap();
    assert_eq!(good(&server, &second.access_token).await, Ok(()));
    assert_eq!(refused(server.anybody().refresh(&first.refresh_token).await), ErrorCode::RefreshReused);
    for token in [&first.access_token, &second.access_token] {
        assert_eq!(good(&server, token).await, Err(ErrorCode::TokenRevoked));
    }
    assert_eq!(refused(server.anybody().refresh(&second.refresh_token).await), ErrorCode::TokenRevoked);
    assert_eq!(good(&server, &bystander.access_token).await, Ok(()));
    // What was taken back stays so over a restart, and what was not does too.
    let server = server.restart().await;
    assert_eq!(good(&server, &second.access_token).await, Err(ErrorCode::TokenRevoked));
    assert_eq!(good(&server, &bystander.access_token).await, Ok(()));
    server.anybody().refresh(&bystander.refresh_token).await.unwrap();
}

#[tokio::test]
async fn of_many_refreshes_at_once_one_wins_and_the_family_ends() {
    let server = Server::start().await;
    let (_, tokens) = server.login(&server.admin_key, "admin").await;
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (client, token) = (server.anybody(), tokens.refresh_token.clone());
            tokio::spawn(async move { client.refresh(&token).await.map_err(|f| f.code()) })
        })
        .collect();
    let mut won = 0;
    for outcome in tries {
        match outcome.await.unwrap() {
            Ok(_) => won += 1,
            Err(code) => assert!(matches!(code, ErrorCode::RefreshReused | ErrorCode::TokenRevoked), "{code}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(good(&server, &tokens.access_token).await, Err(ErrorCode::TokenRevoked));
}

#[tokio::test]
async fn logout_a_revoked_key_and_a_new_secret_each_end_what_came_of_them() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let (client, tokens) = server.login(&server.admin_key, "leaving").await;
    logout(&client).await.unwrap();
    assert_eq!(good(&server, &tokens.access_token).await, Err(ErrorCode::TokenRevoked));
    assert_eq!(refused(server.anybody().refresh(&tokens.refresh_token).await), ErrorCode::TokenRevoked);
    assert_eq!(refused(logout(&client).await), ErrorCode::TokenRevoked);

    let made = told(admin.admin().create_enrolment_key(v1::CreateEnrolmentKeyRequest::default()).await).unwrap();
    let (_, one) = server.login(&made.enrolment_key, "one").await;
    let (_, two) = server.login(&made.enrolment_key, "two").await;
    let request = v1::RevokeEnrolmentKeyRequest { key_id: made.key.unwrap().key_id };
    told(admin.admin().revoke_enrolment_key(request.clone()).await).unwrap();
    for tokens in [&one, &two] {
        assert_eq!(good(&server, &tokens.access_token).await, Err(ErrorCode::TokenRevoked));
        assert_eq!(refused(server.anybody().refresh(&tokens.refresh_token).await), ErrorCode::TokenRevoked);
    }
    // Revoking what is revoked, or absent, succeeds.
    told(admin.admin().revoke_enrolment_key(request).await).unwrap();

    let secret = set_secret(&admin, "planner", &["observer"]).await;
    let old = login_by_secret(&server, "default", "planner", &secret).await.unwrap();
    assert_eq!(old.roles, ["observer"]);
    let newer = set_secret(&admin, "planner", &["observer"]).await;
    assert_eq!(good(&server, &old.access_token).await, Err(ErrorCode::TokenRevoked));
    assert_eq!(refused(login_by_secret(&server, "", "planner", &secret).await), ErrorCode::InvalidCredentials);
    let new = login_by_secret(&server, "", "planner", &newer).await.unwrap();
    assert_eq!(good(&server, &new.access_token).await, Ok(()));
}

#[tokio::test]
async fn an_agent_keeps_its_id_when_its_secret_changes() {
    let server = Server::start().await;
    let admin = server.admin().await;
    for incarnation in [1, 2] {
        let secret = set_secret(&admin, "planner", &[]).await;
        let tokens = login_by_secret(&server, "", "planner", &secret).await.unwrap();
        let agent = server.with_token(&tokens.access_token).register(spec("planner")).await.unwrap();
        assert_eq!(agent.incarnation, incarnation);
    }
}

#[tokio::test]
async fn no_token_outlives_the_key_that_it_came_of() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let request = v1::CreateEnrolmentKeyRequest { ttl_ms: 600_000, ..Default::default() };
    let key = told(admin.admin().create_enrolment_key(request).await).unwrap().enrolment_key;
    let (_, tokens) = server.login(&key, "guest").await;
    let end = server.clock_ms() + 600_000;
    assert_eq!((tokens.access_expires_at_ms, tokens.refresh_expires_at_ms), (end, end));
    server.advance(Duration::from_secs(300));
    let next = server.anybody().refresh(&tokens.refresh_token).await.unwrap();
    assert_eq!((next.access_expires_at_ms, next.refresh_expires_at_ms), (end, end));
    server.advance(Duration::from_secs(300));
    assert_eq!(good(&server, &next.access_token).await, Err(ErrorCode::TokenExpired));
    assert_eq!(refused(server.anybody().refresh(&next.refresh_token).await), ErrorCode::InvalidCredentials);
}

#[tokio::test]
async fn a_new_signing_key_signs_and_the_old_one_still_verifies() {
    let server = Server::start().await;
    let (admin, before) = server.login(&server.admin_key, "admin").await;
    let new = told(admin.admin().rotate_signing_key(v1::RotateSigningKeyRequest {}).await).unwrap().key_id;
    let (_, after) = server.login(&server.admin_key, "admin").await;
    let header = jsonwebtoken::decode_header(&after.access_token).unwrap();
    assert_eq!(header.kid.as_deref(), Some(new.as_str()));
    for tokens in [&before, &after] {
        assert_eq!(good(&server, &tokens.access_token).await, Ok(()));
    }
    let server = server.restart().await;
    for tokens in [&before, &after] {
        assert_eq!(good(&server, &tokens.access_token).await, Ok(()));
    }
}

#[tokio::test]
async fn roles_decide_and_the_refusal_names_those_that_would_do() {
    let server = Server::start().await;
    let consumer = server.agent("c", &["agent-consumer"]).await;
    let failure = consumer.send(crate::support::message("a", "x")).await.unwrap_err();
    assert_eq!(failure.code(), ErrorCode::PermissionDenied);
    assert!(failure.error.message.contains("agent-producer"), "{failure:?}");
    let producer = server.agent("p", &["agent-producer"]).await;
    producer.send(crate::support::message("a", "x")).await.unwrap();
    let request = v1::CreateSubscriptionRequest::default();
    assert_eq!(refused(told(producer.subscriptions().create_subscription(request).await)), ErrorCode::PermissionDenied);
    let observer = server.agent("o", &["observer"]).await;
    assert_eq!(refused(observer.register(spec("o")).await), ErrorCode::PermissionDenied);
    observer.discover(v1::DiscoverAgentsRequest::default()).await.unwrap();
    let full = server.agent("f", &["agent-full"]).await;
    let request = v1::CreateTenantRequest { id: "t".to_owned(), name: String::new() };
    assert_eq!(refused(told(full.admin().create_tenant(request).await)), ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_tenants_token_shows_and_changes_nothing_of_another_tenant() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let request = v1::CreateTenantRequest { id: "other".to_owned(), name: "Other".to_owned() };
    told(admin.admin().create_tenant(request).await).unwrap();
    let ours = server.agent("planner", &[]).await;
    ours.register(spec("planner")).await.unwrap();
    let key = admin.new_key("other", "", &["admin"]).await;
    let (theirs, tokens) = server.login(&key, "planner").await;
    assert_eq!(tokens.tenant_id, "other");
    // A foreign id and an absent one answer alike.
    let foreign = theirs.get_agent("planner").await.unwrap_err();
    let absent = theirs.get_agent("absent").await.unwrap_err();
    assert_eq!(foreign.error.message.replace("planner", "absent"), absent.error.message);
    assert_eq!((foreign.code(), foreign.error.details), (absent.code(), absent.error.details));
    assert!(theirs.discover(v1::DiscoverAgentsRequest::default()).await.unwrap().agents.is_empty());
    theirs.register(spec("planner")).await.unwrap();
    let remove = v1::UnregisterAgentRequest { agent_id: "planner".to_owned(), keep_inbox: false };
    told(theirs.agents().unregister_agent(remove).await).unwrap();
    assert_eq!(ours.get_agent("planner").await.unwrap().incarnation, 1);
    // Its admins rule their own tenant only.
    let keys = told(theirs.admin().list_enrolment_keys(v1::ListEnrolmentKeysRequest::default()).await).unwrap().keys;
    assert_eq!(keys.len(), 1);
    let denied = ErrorCode::PermissionDenied;
    let tenants = v1::ListTenantsRequest::default();
    assert_eq!(refused(told(theirs.admin().list_tenants(tenants).await)), denied);
    assert_eq!(refused(told(theirs.admin().rotate_signing_key(v1::RotateSigningKeyRequest {}).await)), denied);
    let key = v1::CreateEnrolmentKeyRequest { tenant_id: "default".to_owned(), ..Default::default() };
    assert_eq!(refused(told(theirs.admin().create_enrolment_key(key).await)), denied);
}

#[tokio::test]
async fn guessing_is_slowed_down_and_storms_of_good_logins_are_not() {
    let server = Server::start().await;
    let key = server.key(&[]).await;
    let (head, _) = key.split_at(key.len() - 4);
    let wrong = format!("{head}AAAA");
    for _ in 0..10 {
        assert_eq!(refused(server.anybody().login(&wrong, "a").await), ErrorCode::InvalidCredentials);
    }
    let limited = server.anybody().login(&wrong, "a").await.unwrap_err();
    assert_eq!(limited.code(), ErrorCode::RateLimited);
    assert!(limited.error.retry_after_ms > 0);
    // Also for the right one: a guess must not be told from a failure.
    assert_eq!(refused(server.anybody().login(&key, "a").await), ErrorCode::RateLimited);
    server.advance(Duration::from_millis(limited.error.retry_after_ms));
    server.anybody().login(&key, "a").await.unwrap();
    for _ in 0..50 {
        server.anybody().login(&server.admin_key, "a").await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_makes_so_many_calls_a_minute_and_another_is_not_hurt() {
    let server = Setup::default().set("auth.calls_per_minute", 5).start().await;
    let key = server.key(&[]).await;
    let (one, _) = server.login(&key, "one").await;
    let (two, _) = server.login(&key, "two").await;
    let call = |client: &Client| {
        let client = client.clone();
        async move { client.discover(v1::DiscoverAgentsRequest::default()).await.map(|_| ()) }
    };
    for _ in 0..5 {
        call(&one).await.unwrap();
    }
    let limited = call(&one).await.unwrap_err();
    assert_eq!((limited.code(), limited.error.retry_after_ms), (ErrorCode::RateLimited, 12_000));
    call(&two).await.unwrap();
    server.advance(Duration::from_secs(12));
    call(&one).await.unwrap();
    assert!(call(&one).await.is_err());
}

#[tokio::test]
async fn with_dev_callers_are_who_they_say_and_tenants_are_made_by_their_first_use() {
    let server = Setup::dev().start().await;
    let made = server.dev("fresh", "planner").register(spec("planner")).await.unwrap();
    assert_eq!(made.incarnation, 1);
    server.anybody().register(spec("x")).await.unwrap();
    let row = server.dev("default", "other").get_agent("x").await.unwrap();
    assert_eq!(row.incarnation, 1);
    let tenants = told(server.anybody().admin().list_tenants(v1::ListTenantsRequest::default()).await).unwrap().tenants;
    let tenants: Vec<String> = tenants.into_iter().map(|t| t.id).collect();
    assert_eq!(tenants, ["default", "fresh"]);
    assert_eq!(refused(server.dev("Bad Tenant", "a").get_agent("x").await), ErrorCode::InvalidName);
    assert_eq!(refused(server.dev("default", "Bad Agent").get_agent("x").await), ErrorCode::InvalidName);
    // A token counts also there, so that identity can be tried out.
    let key = server.anybody().new_key("", "", &["observer"]).await;
    let (observer, _) = server.login(&key, "o").await;
    assert_eq!(refused(observer.register(spec("o")).await), ErrorCode::PermissionDenied);
    assert_eq!(good(&server, "junk").await, Err(ErrorCode::TokenInvalid));
}

#[tokio::test]
async fn acts_on_keys_and_tokens_are_audited_without_their_secrets() {
    let server = Server::start().await;
    let admin = server.admin().await;
    let key = admin.new_key("", "", &[]).await;
    let _ = server.anybody().login(&format!("{key}x"), "guesser").await;
    let (_, tokens) = server.login(&key, "a").await;
    let folder = server.data_folder();
    server.stop().await;
    let mut raw = Vec::new();
    for name in ["metadata.db", "metadata.db-wal", "metadata.sqlite", "metadata.sqlite-wal"] {
        raw.extend(std::fs::read(folder.path().join("data").join(name)).unwrap_or_default());
    }
    let has = |text: &str| raw.windows(text.len()).any(|w| w == text.as_bytes());
    for action in ["session.login", "enrolment_key.create", "invalid_credentials", "guesser"] {
        assert!(has(action), "{action} was not noted");
    }
    let secret_of = |handle: &str| handle.splitn(4, '_').nth(3).unwrap().to_owned();
    for secret in [secret_of(&key), tokens.access_token.clone(), secret_of(&tokens.refresh_token)] {
        assert!(secret.len() >= 40, "{secret}");
        assert!(!has(&secret), "a secret is in the clear on disk");
    }
}
