//! Tokens that open nothing: expired, forged, altered, taken back, of another server, by another algorithm. Each is tried
//! on a unary call and on both hot streams of a connection that a good token uses, too.
//!
//! The server's own key is read out of its folder while it is stopped: what a token that it signed itself may still get
//! wrong (audience, issuer, times, claims) cannot be tried without it.

use acb_ports::ManualClock;
use acb_proto::v1;
use acb_server::{
    auth::{Principal, Roles, keyring::Keyring, keyring::new_signing_key},
    boot,
    config::{
        Config,
        load::{Origin, Values},
    },
};
use acb_testkit::{
    Server,
    raw::{Failure, HotStream, Identity, RawClient, answer},
};
use acb_types::Timestamp;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::support::{Code, Log, bytes, consume_open, drain, good, is, options, producer, publish_open, refused};

const UNAUTHENTICATED: Code = (600, "unauthenticated");
const EXPIRED: Code = (602, "token_expired");
const INVALID: Code = (603, "token_invalid");
const REVOKED: Code = (604, "token_revoked");
const MISMATCH: Code = (605, "token_mismatch");

/// A server that asks for credentials, with what an attacker may know and what it must not.
struct Guarded {
    server: Server,
    admin_key: String,
    /// The name of the key that signs.
    kid: String,
    /// The key that signs.
    private: Vec<u8>,
    /// Its public half, which everybody may have.
    public: String,
}

impl Guarded {
    async fn start() -> Self {
        let mut server = options().with_credentials().real_clock().start().await.unwrap();
        let screen = server.log().unwrap();
        let admin_key = screen.split_whitespace().find(|w| w.starts_with("acb_default_")).unwrap().to_owned();
        server.stop().await.unwrap();
        let mut values = Values::default();
        values.set("storage.data_dir", server.data_dir().display().to_string(), Origin::Flag("--set")).unwrap();
        let config = Config::read(&values).unwrap();
        let stores = boot::stores(&config, std::sync::Arc::new(ManualClock::default())).await.unwrap();
        let key = stores.metadata.signing_key_list().await.unwrap().remove(0);
        drop(stores);
        server.restart().await.unwrap();
        let anybody = RawClient::connect(server.address(), &Identity::None).await.unwrap();
        let jwks = answer(anybody.auth().get_jwks(v1::GetJwksRequest {})).await.unwrap().jwks_json;
        let jwks: Value = serde_json::from_str(&jwks).unwrap();
        assert_eq!(jwks["keys"][0]["kid"], key.key_id);
        let public = jwks["keys"][0]["x"].as_str().unwrap().to_owned();
        Self { server, admin_key, kid: key.key_id, private: key.private.0, public }
    }

    async fn login(&self, agent: &str) -> v1::Tokens {
        let anybody = RawClient::connect(self.server.address(), &Identity::None).await.unwrap();
        let request = v1::LoginRequest {
            enrolment_key: self.admin_key.clone(),
            agent_id: agent.to_owned(),
            ..Default::default()
        };
        answer(anybody.auth().login(request)).await.unwrap().tokens.unwrap()
    }

    /// Signs claims with the server's own key.
    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        self.sign_as(&header, claims)
    }

    fn sign_as(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(&self.private)).unwrap()
    }

    /// Signs claims by HMAC with a secret that everybody can make.
    fn hmac(&self, secret: &[u8], claims: &Value) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
    }
}

fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Tries an identity on a unary call and on both hot streams.
async fn tried(client: &RawClient, identity: &Identity) -> [(&'static str, Result<(), Failure>); 3] {
    let client = client.with_identity(identity).unwrap();
    let mut agents = client.agents();
    [
        ("a call", answer(agents.discover_agents(v1::DiscoverAgentsRequest::default())).await.map(drop)),
        ("a publish stream", opened(&client, acb_proto::PUBLISH_STREAM, bytes(&publish_open())).await),
        ("a consume stream", opened(&client, acb_proto::CONSUME, bytes(&consume_open("t"))).await),
    ]
}

async fn opened(client: &RawClient, path: &'static str, open: bytes::Bytes) -> Result<(), Failure> {
    let mut stream = client.hot(path).await?;
    stream.send(open).await?;
    stream.next_within(acb_testkit::wait::PATIENCE).await.map(drop)
}

async fn each_is_refused(guarded: &Guarded, token: &str, cases: Vec<(&str, Identity, Code)>) {
    let identity = Identity::Token(token.to_owned());
    let bus = RawClient::connect(guarded.server.address(), &identity).await.unwrap();
    let log = Log::mark(&guarded.server, &bus).await;
    for (what, identity, code) in cases {
        for (way, outcome) in tried(&bus, &identity).await {
            refused(&format!("{what}, by {way}"), outcome, code);
        }
    }
    log.stands(&guarded.server, &bus).await;
    for (way, outcome) in tried(&bus, &identity).await {
        outcome.unwrap_or_else(|e| panic!("the good token, by {way}: {e}"));
    }
}

fn token(text: impl Into<String>) -> Identity {
    Identity::Token(text.into())
}

fn header(text: &str) -> Identity {
    Identity::Authorization(text.to_owned())
}

#[tokio::test]
async fn what_is_no_token_opens_nothing() {
    let guarded = Guarded::start().await;
    let tokens = guarded.login("agent").await;
    let access = tokens.access_token;
    let (head, signature) = access.rsplit_once('.').unwrap();
    let cases = vec![
        ("no token", Identity::None, UNAUTHENTICATED),
        ("a name, as with --dev", Identity::dev("default", "agent"), UNAUTHENTICATED),
        ("an empty header", header(""), INVALID),
        ("a scheme without a token", header("Bearer"), INVALID),
        ("a scheme and a space", header("Bearer "), INVALID),
        ("another scheme", header("Basic YWdlbnQ6c2VjcmV0"), INVALID),
        ("a token without a scheme", header(&access), INVALID),
        ("garbage", token("%%%.???.!!!"), INVALID),
        ("three empty parts", token(".."), INVALID),
        ("a token without a signature", token(head), INVALID),
        ("a token with an empty signature", token(format!("{head}.")), INVALID),
        ("a token that is cut", token(&access[..access.len() - 2]), INVALID),
        ("a token with a part too many", token(format!("{access}.{signature}")), INVALID),
        ("more than any token has", token("x".repeat(8 * 1024)), INVALID),
        ("a refresh token", token(tokens.refresh_token), INVALID),
        ("an enrolment key", token(&guarded.admin_key), INVALID),
    ];
    each_is_refused(&guarded, &access, cases).await;
}

#[tokio::test]
async fn a_token_that_somebody_else_made_opens_nothing() {
    let guarded = Guarded::start().await;
    let access = guarded.login("agent").await.access_token;
    let claims = claims_of(&access);
    let (head, rest) = access.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let altered = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(format!("{head}.{}.{signature}", part(&claims)))
    };
    // An attacker's own key, under our key's name.
    let now = Timestamp(claims["nbf"].as_u64().unwrap() * 1000);
    let their_key = new_signing_key(guarded.kid.clone(), now).unwrap();
    let ring = Keyring::new(claims["iss"].as_str().unwrap().to_owned(), std::slice::from_ref(&their_key)).unwrap();
    let principal = Principal {
        tenant: "default".parse().unwrap(),
        agent: "agent".parse().unwrap(),
        roles: Roles::ALL,
        credential: claims["credential"].as_str().unwrap().parse().unwrap(),
        family: claims["family"].as_str().unwrap().into(),
    };
    let end = Timestamp(now.0 + 3_600_000);
    let theirs = ring.sign(&principal, now, end, "t".to_owned()).unwrap();
    let named =
        |alg: &str| token(format!("{}.{}.{signature}", part(&json!({"alg": alg, "kid": guarded.kid})), part(&claims)));
    let unsigned = |alg: &str| token(format!("{}.{}.", part(&json!({"alg": alg, "kid": guarded.kid})), part(&claims)));
    let raw = URL_SAFE_NO_PAD.decode(&guarded.public).unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", guarded.public);
    let mut other_kid = Header::new(Algorithm::EdDSA);
    other_kid.kid = Some("../../etc/passwd".to_owned());
    let cases = vec![
        ("another key under our key's name", token(theirs), INVALID),
        ("another tenant written in", altered("tenant_id", json!("victim")), INVALID),
        ("another agent written in", altered("agent_id", json!("root")), INVALID),
        ("another role written in", altered("roles", json!(["admin"])), INVALID),
        ("a later end written in", altered("exp", json!(u64::MAX)), INVALID),
        ("HMAC with the public key's bytes", token(guarded.hmac(&raw, &claims)), INVALID),
        (
            "HMAC with the public key as it is published",
            token(guarded.hmac(guarded.public.as_bytes(), &claims)),
            INVALID,
        ),
        ("HMAC with the public key as a file", token(guarded.hmac(pem.as_bytes(), &claims)), INVALID),
        ("no algorithm", unsigned("none"), INVALID),
        ("no algorithm, spelled otherwise", unsigned("nOnE"), INVALID),
        ("our algorithm and no signature", unsigned("EdDSA"), INVALID),
        ("our signature under another algorithm", named("ES256"), INVALID),
        ("our signature under RSA", named("RS256"), INVALID),
        ("our signature under HMAC", named("HS512"), INVALID),
        ("our key under no name", token(guarded.sign_as(&Header::new(Algorithm::EdDSA), &claims)), INVALID),
        ("our key under another name", token(guarded.sign_as(&other_kid, &claims)), INVALID),
    ];
    each_is_refused(&guarded, &access, cases).await;
}

#[tokio::test]
async fn a_token_of_our_own_for_others_or_for_another_time_opens_nothing() {
    let guarded = Guarded::start().await;
    let access = guarded.login("agent").await.access_token;
    let good = claims_of(&access);
    let now = good["iat"].as_u64().unwrap();
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(guarded.sign(&claims))
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        token(guarded.sign(&claims))
    };
    // The signature is right each time: signed anew, unchanged, the token is good.
    assert!(tried_well(&guarded, &token(guarded.sign(&good))).await);
    let cases = vec![
        ("an expired token", changed("exp", json!(now - 1)), EXPIRED),
        ("a token that ends at the beginning of time", changed("exp", json!(0)), EXPIRED),
        ("a token that is not good yet", changed("nbf", json!(now + 3600)), INVALID),
        ("a token that is never good", changed("nbf", json!(u64::MAX)), INVALID),
        ("a token for others", changed("aud", json!("other")), INVALID),
        ("a token by others", changed("iss", json!("https://elsewhere")), INVALID),
        ("a token for nobody", without("aud"), INVALID),
        ("a token by nobody", without("iss"), INVALID),
        ("a token without an end", without("exp"), INVALID),
        ("a token without a beginning", without("nbf"), INVALID),
        ("a token without a tenant", without("tenant_id"), INVALID),
        ("a token without an agent", without("agent_id"), INVALID),
        ("a tenant that is no name", changed("tenant_id", json!("Bad Tenant")), INVALID),
        ("an agent that is no name", changed("agent_id", json!("../x")), INVALID),
        ("a role that is none", changed("roles", json!(["emperor"])), INVALID),
        ("an end that is no number", changed("exp", json!("tomorrow")), INVALID),
        ("an end below zero", changed("exp", json!(-1)), INVALID),
    ];
    each_is_refused(&guarded, &access, cases).await;
}

async fn tried_well(guarded: &Guarded, identity: &Identity) -> bool {
    let client = RawClient::connect(guarded.server.address(), &Identity::None).await.unwrap();
    tried(&client, identity).await.iter().all(|(_, outcome)| outcome.is_ok())
}

#[tokio::test]
async fn a_token_that_was_taken_back_opens_nothing_also_after_a_kill() {
    let mut guarded = Guarded::start().await;
    let stays = guarded.login("stays").await.access_token;
    let leaves = guarded.login("leaves").await.access_token;
    let leaving = RawClient::connect(guarded.server.address(), &token(&leaves)).await.unwrap();
    answer(leaving.auth().logout(v1::LogoutRequest {})).await.unwrap();
    each_is_refused(&guarded, &stays, vec![("a token after its logout", token(&leaves), REVOKED)]).await;
    guarded.server.kill().await.unwrap();
    guarded.server.restart().await.unwrap();
    each_is_refused(&guarded, &stays, vec![("a token after its logout and a kill", token(&leaves), REVOKED)]).await;
}

#[tokio::test]
async fn a_tenant_that_a_good_token_names_and_that_is_not_there_opens_nothing() {
    let guarded = Guarded::start().await;
    let access = guarded.login("agent").await.access_token;
    let mut claims = claims_of(&access);
    claims["tenant_id"] = json!("absent");
    let client = RawClient::connect(guarded.server.address(), &Identity::None).await.unwrap();
    for (way, outcome) in tried(&client, &token(guarded.sign(&claims))).await {
        // A call finds nothing there; a stream has no log to speak to.
        match outcome {
            Ok(()) => assert_eq!(way, "a call"),
            Err(failure) => is(way, &failure, (207, "tenant_not_found")),
        }
    }
    let folder = guarded.server.data_dir().join("tenants/absent");
    assert!(!folder.exists(), "a tenant was made by a token that names it");
}

#[tokio::test]
async fn a_stream_that_is_given_a_bad_token_ends_and_what_came_with_it_is_not_stored() {
    let guarded = Guarded::start().await;
    let access = guarded.login("agent").await.access_token;
    let other = guarded.login("other").await.access_token;
    let mut expired = claims_of(&access);
    expired["exp"] = json!(expired["iat"].as_u64().unwrap() - 1);
    let bus = RawClient::connect(guarded.server.address(), &token(&access)).await.unwrap();
    for (what, given, code) in [
        ("an expired one", guarded.sign(&expired), EXPIRED),
        ("a forged one", guarded.hmac(guarded.public.as_bytes(), &claims_of(&access)), INVALID),
        ("an empty one", String::new(), INVALID),
        ("another's", other, MISMATCH),
    ] {
        let log = Log::mark(&guarded.server, &bus).await;
        let reauth = Some(v1::Reauth { token: given });
        let mut session = producer(&bus).await;
        let frame = v1::PublishStreamRequest {
            reauth: reauth.clone(),
            counter: 1,
            messages: vec![good("t")],
            ..Default::default()
        };
        session.stream().send(bytes(&frame)).await.unwrap();
        refused(what, drain(session.stream()).await, code);
        let mut stream: HotStream = bus.hot(acb_proto::CONSUME).await.unwrap();
        stream.send(bytes(&consume_open("t"))).await.unwrap();
        stream.send(bytes(&v1::ConsumeRequest { reauth, ..Default::default() })).await.unwrap();
        refused(what, drain(&mut stream).await, code);
        log.stands(&guarded.server, &bus).await;
    }
}
