//! A server in a temporary folder, and clients that speak to it as anybody.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use crate::held_log::{HeldLog, Hold};
use acb_ports::ManualClock;
use acb_proto::v1::{
    self, admin_service_client::AdminServiceClient, agent_registry_client::AgentRegistryClient,
    auth_service_client::AuthServiceClient, context_service_client::ContextServiceClient,
    dead_letter_service_client::DeadLetterServiceClient, message_service_client::MessageServiceClient,
    stream_service_client::StreamServiceClient, subscription_service_client::SubscriptionServiceClient,
};
use acb_server::{
    ServerBuilder, ServerHandle, boot,
    config::{
        Config,
        load::{Origin, Values},
    },
};
use acb_types::ErrorCode;
use prost::Message as _;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// A running server, its folder and its clock.
pub(crate) struct Server {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) admin_key: String,
    handle: ServerHandle,
    folder: Arc<TempDir>,
    setup: Setup,
}

/// What a test asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    dev: bool,
    settings: Vec<(String, String)>,
    hold: Option<Arc<Hold>>,
    blobs: Option<acb_ports::memory::MemoryBlobs>,
}

impl Setup {
    pub(crate) fn dev() -> Self {
        Self { dev: true, ..Self::default() }
    }

    /// Syncs of one class wait until the test lets them go.
    pub(crate) fn holding(mut self, hold: &Arc<Hold>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }

    /// Contents are kept in memory, where a test can make the disk full.
    pub(crate) fn blobs(mut self, blobs: &acb_ports::memory::MemoryBlobs) -> Self {
        self.blobs = Some(blobs.clone());
        self
    }

    pub(crate) fn set(mut self, path: &str, text: impl fmt::Display) -> Self {
        self.settings.push((path.to_owned(), text.to_string()));
        self
    }

    pub(crate) async fn start(self) -> Server {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Server::start_in(folder, Arc::new(ManualClock::default()), self, String::new()).await
    }
}

impl Server {
    /// A server that asks for credentials, on a clock that stands until it is moved.
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    async fn start_in(folder: Arc<TempDir>, clock: Arc<ManualClock>, setup: Setup, admin_key: String) -> Self {
        let mut values = Values::default();
        let data = folder.path().join("data");
        let fixed = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("server.admin_listen", "127.0.0.1:0".to_owned()),
            ("storage.data_dir", data.display().to_string()),
            ("edge.hot_runtimes", "1".to_owned()),
        ];
        let fixed = fixed.into_iter().map(|(k, v)| (k.to_owned(), v));
        for (path, text) in fixed.chain(setup.settings.iter().cloned()) {
            values.set(&path, text, Origin::Flag("--set")).unwrap();
        }
        let config = Config::read(&values).unwrap();
        let mut stores = boot::stores(&config, Arc::clone(&clock) as _).await.unwrap();
        if let Some(hold) = &setup.hold {
            stores.log = Arc::new(HeldLog { inner: stores.log, hold: Arc::clone(hold) });
        }
        if let Some(blobs) = &setup.blobs {
            stores.blobs = Arc::new(blobs.reopened());
        }
        let mut builder = ServerBuilder::new(config, stores).clock(Arc::clone(&clock) as _);
        if setup.dev {
            builder = builder.dev().manual_clock(Arc::clone(&clock));
        }
        let handle = builder.start().await.unwrap();
        let admin_key = handle.admin_key().map_or(admin_key, str::to_owned);
        Self { clock, admin_key, handle, folder, setup }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.handle.admin_address()
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address())).unwrap().connect_lazy()
    }

    /// A client without a token.
    pub(crate) fn anybody(&self) -> Client {
        Client { channel: self.channel(), identity: Identity::Nobody }
    }

    /// A client that says who it is, to a server with `--dev`.
    pub(crate) fn dev(&self, tenant: &str, agent: &str) -> Client {
        Client {
            channel: self.channel(),
            identity: Identity::Dev { tenant: tenant.to_owned(), agent: agent.to_owned() },
        }
    }

    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client { channel: self.channel(), identity: Identity::Token(token.to_owned()) }
    }

    /// Logs in with a key, and gives the client and its tokens.
    pub(crate) async fn login(&self, key: &str, agent: &str) -> (Client, v1::Tokens) {
        let tokens = self.anybody().login(key, agent).await.unwrap();
        (self.with_token(&tokens.access_token), tokens)
    }

    /// A client as the first admin.
    pub(crate) async fn admin(&self) -> Client {
        self.login(&self.admin_key, "admin").await.0
    }

    /// A key of the tenant `default` with these roles.
    pub(crate) async fn key(&self, roles: &[&str]) -> String {
        self.admin().await.new_key("", "", roles).await
    }

    /// A client of the tenant `default` with these roles, by a key of its own.
    pub(crate) async fn agent(&self, agent: &str, roles: &[&str]) -> Client {
        let key = self.key(roles).await;
        self.login(&key, agent).await.0
    }

    /// Stops, and starts again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        let (folder, clock, setup, key) = (self.folder, self.clock, self.setup, self.admin_key);
        self.handle.shutdown(hurried()).await;
        Self::start_in(folder, clock, setup, key).await
    }

    pub(crate) async fn stop(self) -> acb_server::Clean {
        self.handle.shutdown(hurried()).await
    }

    /// Stops, waiting for who is connected.
    pub(crate) async fn stop_gently(self) -> acb_server::Clean {
        self.handle.shutdown(CancellationToken::new()).await
    }

    /// Keeps the folder after the server is gone.
    pub(crate) fn data_folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub(crate) fn clock_ms(&self) -> u64 {
        acb_ports::Clock::now(&*self.clock).wall.0
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// The metrics as they are scraped.
    pub(crate) async fn metrics(&self) -> String {
        http(self.admin_address(), "GET", "/metrics").await.body
    }
}

fn hurried() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Who a client is.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Nobody,
    Token(String),
    Dev { tenant: String, agent: String },
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        match self {
            Self::Nobody => {}
            Self::Token(token) => {
                metadata.insert("authorization", MetadataValue::try_from(format!("Bearer {token}")).unwrap());
            }
            Self::Dev { tenant, agent } => {
                metadata.insert("acb-tenant", MetadataValue::try_from(tenant.as_str()).unwrap());
                metadata.insert("acb-agent", MetadataValue::try_from(agent.as_str()).unwrap());
            }
        }
        Ok(request)
    }
}

type Bound = InterceptedService<Channel, Identity>;

/// A client of all services.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) identity: Identity,
}

impl Client {
    pub(crate) fn bound(&self) -> Bound {
        InterceptedService::new(self.channel.clone(), self.identity.clone())
    }

    pub(crate) fn agents(&self) -> AgentRegistryClient<Bound> {
        AgentRegistryClient::new(self.bound())
    }

    pub(crate) fn messages(&self) -> MessageServiceClient<Bound> {
        MessageServiceClient::new(self.bound())
    }

    pub(crate) fn subscriptions(&self) -> SubscriptionServiceClient<Bound> {
        SubscriptionServiceClient::new(self.bound())
    }

    pub(crate) fn dead_letters(&self) -> DeadLetterServiceClient<Bound> {
        DeadLetterServiceClient::new(self.bound())
    }

    pub(crate) fn contexts(&self) -> ContextServiceClient<Bound> {
        ContextServiceClient::new(self.bound())
    }

    pub(crate) fn streams(&self) -> StreamServiceClient<Bound> {
        StreamServiceClient::new(self.bound()).max_encoding_message_size(16 << 20).max_decoding_message_size(16 << 20)
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Bound> {
        AuthServiceClient::new(self.bound())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Bound> {
        AdminServiceClient::new(self.bound())
    }

    pub(crate) async fn login(&self, key: &str, agent: &str) -> Result<v1::Tokens, Failure> {
        let request = v1::LoginRequest {
            enrolment_key: key.to_owned(),
            agent_id: agent.to_owned(),
            ..v1::LoginRequest::default()
        };
        Ok(told(self.auth().login(request).await)?.tokens.unwrap())
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<v1::Tokens, Failure> {
        let request = v1::RefreshRequest { refresh_token: token.to_owned() };
        Ok(told(self.auth().refresh(request).await)?.tokens.unwrap())
    }

    pub(crate) async fn new_key(&self, tenant: &str, pattern: &str, roles: &[&str]) -> String {
        let request = v1::CreateEnrolmentKeyRequest {
            tenant_id: tenant.to_owned(),
            agent_pattern: pattern.to_owned(),
            roles: roles.iter().map(ToString::to_string).collect(),
            ..v1::CreateEnrolmentKeyRequest::default()
        };
        told(self.admin().create_enrolment_key(request).await).unwrap().enrolment_key
    }

    pub(crate) async fn register(&self, spec: v1::AgentSpec) -> Result<v1::Agent, Failure> {
        let request = v1::RegisterAgentRequest { spec: Some(spec) };
        Ok(told(self.agents().register_agent(request).await)?.agent.unwrap())
    }

    pub(crate) async fn get_agent(&self, id: &str) -> Result<v1::Agent, Failure> {
        let request = v1::GetAgentRequest { agent_id: id.to_owned() };
        Ok(told(self.agents().get_agent(request).await)?.agent.unwrap())
    }

    pub(crate) async fn heartbeat(&self, id: &str, incarnation: u64) -> Result<(), Failure> {
        let request = v1::HeartbeatRequest { agent_id: id.to_owned(), incarnation, ..Default::default() };
        told(self.agents().heartbeat(request).await).map(|_| ())
    }

    pub(crate) async fn discover(
        &self,
        request: v1::DiscoverAgentsRequest,
    ) -> Result<v1::DiscoverAgentsResponse, Failure> {
        told(self.agents().discover_agents(request).await)
    }

    pub(crate) async fn send(&self, message: v1::Message) -> Result<v1::SendResponse, Failure> {
        let request = v1::SendRequest { message: Some(message), durability: 0 };
        told(self.messages().send(request).await)
    }
}

/// An agent that says nothing but its id.
pub(crate) fn spec(id: &str) -> v1::AgentSpec {
    v1::AgentSpec { id: id.to_owned(), ..v1::AgentSpec::default() }
}

/// A message of few words.
pub(crate) fn message(topic: &str, payload: &str) -> v1::Message {
    v1::Message { topic: topic.to_owned(), payload: payload.as_bytes().to_vec().into(), ..v1::Message::default() }
}

/// A failed call, as the contract has it.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) error: v1::Error,
    pub(crate) status: tonic::Code,
}

impl Failure {
    pub(crate) fn code(&self) -> ErrorCode {
        self.error.code.parse().unwrap_or_else(|_| panic!("not a code: {:?}", self.error))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}): {}", self.error.code, self.status, self.error.message)
    }
}

/// Takes an answer, or a failure that keeps every promise of the contract about failures.
pub(crate) fn told<T>(outcome: Result<Response<T>, Status>) -> Result<T, Failure> {
    match outcome {
        Ok(response) => {
            let id = response.metadata().get("acb-request-id").expect("every answer names its request");
            assert_eq!(id.len(), 24, "{id:?}");
            Ok(response.into_inner())
        }
        Err(status) => Err(failure(&status)),
    }
}

/// Reads a failure, checking that metadata, details and table agree.
pub(crate) fn failure(status: &Status) -> Failure {
    let text = |key| status.metadata().get(key).map(|v| v.to_str().unwrap().to_owned());
    let error = v1::Error::decode(status.details()).unwrap();
    assert_eq!(text("acb-error-code").as_deref(), Some(error.code.as_str()), "{status:?}");
    assert_eq!(text("acb-request-id").as_deref(), Some(error.request_id.as_str()));
    let code: ErrorCode = error.code.parse().unwrap();
    assert_eq!(status.code() as i32, code.grpc_status(), "{status:?}");
    assert_eq!(error.retryable, code.retryable());
    let hint = text("acb-retry-after-ms").map(|t| t.parse::<u64>().unwrap());
    assert_eq!(hint, error.retryable.then_some(error.retry_after_ms));
    Failure { error, status: status.code() }
}

/// The code of a failure.
pub(crate) fn refused<T: fmt::Debug>(outcome: Result<T, Failure>) -> ErrorCode {
    outcome.expect_err("must be refused").code()
}

/// Polls a level until it holds, for ten seconds at most, and says the last thing seen otherwise.
pub(crate) async fn wait_until<T: fmt::Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    holds: impl Fn(&T) -> bool,
) -> T {
    let started = std::time::Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    loop {
        looks.tick().await;
        let seen = look().await;
        if holds(&seen) {
            return seen;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: last seen {seen:?}");
    }
}

/// An answer in HTTP/1.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One HTTP/1 request without a body.
pub(crate) async fn http(address: SocketAddr, method: &str, path: &str) -> Answer {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // Answers of known length come as they are; others in chunks, which tests only search.
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
