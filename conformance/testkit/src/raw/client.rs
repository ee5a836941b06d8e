//! A connection that speaks the wire contract and knows nothing of our SDKs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use acb_proto::v1::{
    admin_service_client::AdminServiceClient, agent_registry_client::AgentRegistryClient,
    auth_service_client::AuthServiceClient, context_service_client::ContextServiceClient,
    dead_letter_service_client::DeadLetterServiceClient, message_service_client::MessageServiceClient,
    stream_service_client::StreamServiceClient, subscription_service_client::SubscriptionServiceClient,
};
use acb_sdk::{Dialer, transport::Io};
use bytes::Bytes;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{codec::BytesCodec, failure::Failure, hot::HotStream};
use crate::driver::{GuestBus, args::BAD_SCENARIO};

/// Longest that a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longest that a unary call may take. Above every bound of the server's own.
const CALL_WITHIN: Duration = Duration::from_mins(1);

/// Largest answer of a stream of contents: a chunk, and room for what stands around it.
const BULK_BYTES_MAX: usize = 2 << 20;

/// How a client says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It does not.
    None,
    /// By name, which a server with `--dev` takes at its word.
    Dev {
        /// The tenant.
        tenant: String,
        /// The agent.
        agent: String,
    },
    /// By an access token.
    Token(String),
    /// By an `authorization` header that may be none: what a client with a bug, or an attacker, sends.
    Authorization(String),
}

impl Identity {
    /// By name.
    pub fn dev(tenant: impl Into<String>, agent: impl Into<String>) -> Self {
        Self::Dev { tenant: tenant.into(), agent: agent.into() }
    }

    fn metadata(&self) -> Result<MetadataMap, Failure> {
        let value = |text: &str| -> Result<MetadataValue<Ascii>, Failure> {
            text.parse().map_err(|_| Failure::own("invalid_name", format!("{text:?} cannot stand in a header")))
        };
        let mut metadata = MetadataMap::new();
        match self {
            Self::None => {}
            Self::Dev { tenant, agent } => {
                metadata.insert("acb-tenant", value(tenant)?);
                metadata.insert("acb-agent", value(agent)?);
            }
            Self::Token(token) => {
                metadata.insert("authorization", value(&format!("Bearer {token}"))?);
            }
            Self::Authorization(header) => {
                metadata.insert("authorization", value(header)?);
            }
        }
        Ok(metadata)
    }
}

/// How a bus is reached.
#[derive(Clone, Debug)]
pub enum Reach {
    /// By a socket.
    Tcp(SocketAddr),
    /// By what stands in for a socket.
    Dialer(Arc<dyn Dialer>),
    /// It is inside a program in another language, and its clients are there too.
    Guest(GuestBus),
}

/// A dialler as tonic wants it.
fn connector(
    dialer: &Arc<dyn Dialer>,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<Box<dyn Io>>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<Box<dyn Io>>>> + Send,
> + Send
+ 'static {
    let dialer = Arc::clone(dialer);
    tower::service_fn(move |_: http::Uri| {
        let dialer = Arc::clone(&dialer);
        async move { Ok(TokioIo::new(dialer.dial(&acb_sdk::Endpoint::default()).await?)) }
    })
}

/// Puts the identity into every call.
#[derive(Clone, Debug)]
pub struct Named(MetadataMap);

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.0.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = entry {
                request.metadata_mut().insert(key.clone(), value.clone());
            }
        }
        Ok(request)
    }
}

/// A service behind an identity.
pub type Service = InterceptedService<Channel, Named>;

/// One connection and one identity.
#[derive(Clone, Debug)]
pub struct RawClient {
    channel: Channel,
    named: Named,
}

impl RawClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(address: SocketAddr, identity: &Identity) -> Result<Self, Failure> {
        Self::connect_over(&Reach::Tcp(address), identity).await
    }

    /// Connects by another way than a socket's.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect_over(reach: &Reach, identity: &Identity) -> Result<Self, Failure> {
        let host = match reach {
            Reach::Tcp(address) => address.to_string(),
            Reach::Dialer(_) => "fake".to_owned(),
            Reach::Guest(_) => {
                return Err(Failure::own(BAD_SCENARIO, "no way leads into the program of another language"));
            }
        };
        let endpoint = Endpoint::from_shared(format!("http://{host}"))
            .map_err(|e| Failure::own("invalid_argument", e.to_string()))?
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        let channel = match reach {
            Reach::Tcp(_) | Reach::Guest(_) => endpoint.connect().await,
            Reach::Dialer(dialer) => endpoint.connect_with_connector(connector(dialer)).await,
        };
        let channel = channel.map_err(|e| Failure::lost(format!("{host}: {e}")))?;
        Ok(Self { channel, named: Named(identity.metadata()?) })
    }

    /// The same connection as somebody else.
    ///
    /// # Errors
    /// When the identity cannot stand in a header.
    pub fn with_identity(&self, identity: &Identity) -> Result<Self, Failure> {
        Ok(Self { channel: self.channel.clone(), named: Named(identity.metadata()?) })
    }

    fn service(&self) -> Service {
        InterceptedService::new(self.channel.clone(), self.named.clone())
    }

    /// Opens a hot stream.
    ///
    /// # Errors
    /// What it was refused with.
    pub async fn hot(&self, path: &'static str) -> Result<HotStream, Failure> {
        HotStream::open(self.channel.clone(), path, self.named.0.clone()).await
    }

    /// One call of any path, as bytes.
    ///
    /// # Errors
    /// What it was refused with.
    pub async fn unary(&self, path: &'static str, request: Bytes) -> Result<Bytes, Failure> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|e| Failure::lost(format!("not ready: {e}")))?;
        let mut request = Request::new(request);
        *request.metadata_mut() = self.named.0.clone();
        answer(grpc.unary(request, PathAndQuery::from_static(path), BytesCodec)).await
    }

    /// `AgentRegistry`.
    pub fn agents(&self) -> AgentRegistryClient<Service> {
        AgentRegistryClient::new(self.service())
    }

    /// `MessageService`.
    pub fn messages(&self) -> MessageServiceClient<Service> {
        MessageServiceClient::new(self.service())
    }

    /// `SubscriptionService`.
    pub fn subscriptions(&self) -> SubscriptionServiceClient<Service> {
        SubscriptionServiceClient::new(self.service())
    }

    /// `DeadLetterService`.
    pub fn dead_letters(&self) -> DeadLetterServiceClient<Service> {
        DeadLetterServiceClient::new(self.service())
    }

    /// `ContextService`.
    pub fn contexts(&self) -> ContextServiceClient<Service> {
        ContextServiceClient::new(self.service())
    }

    /// `StreamService`.
    pub fn streams(&self) -> StreamServiceClient<Service> {
        StreamServiceClient::new(self.service()).max_decoding_message_size(BULK_BYTES_MAX)
    }

    /// `AuthService`.
    pub fn auth(&self) -> AuthServiceClient<Service> {
        AuthServiceClient::new(self.service())
    }

    /// `AdminService`.
    pub fn admin(&self) -> AdminServiceClient<Service> {
        AdminServiceClient::new(self.service())
    }
}

/// Waits for a unary call's answer.
///
/// # Errors
/// What it was refused with; `no_answer` when none came.
pub async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_WITHIN, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::own("no_answer", format!("no answer within {CALL_WITHIN:?}"))),
    }
}
