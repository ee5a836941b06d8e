//! A bus that does exactly what the test says: it accepts connections over memory, hands the hot streams to the test,
//! answers unary calls from a table, and can be cut at any byte.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use acb_proto::v1;
use acb_sdk::{Client, ClientBuilder, Credentials, Dialer, Endpoint};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, body::Body, metadata::MetadataMap};
use tonic_prost::ProstCodec;

/// How long a test waits for anything before it says what it waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

type Unary = Box<dyn Fn(&MetadataMap, &[u8]) -> Result<Vec<u8>, Status> + Send + Sync>;

/// A hot stream in the hands of the test.
pub(crate) struct Call<Q, A> {
    pub(crate) metadata: MetadataMap,
    pub(crate) requests: Streaming<Q>,
    pub(crate) answers: mpsc::Sender<Result<A, Status>>,
}

impl<Q, A> Call<Q, A> {
    /// The next frame of the client.
    pub(crate) async fn next(&mut self) -> Q {
        soon("a frame of the client", self.requests.message())
            .await
            .expect("the stream broke")
            .expect("the stream ended")
    }

    /// Whether the client has ended its side in good order.
    pub(crate) async fn ended(&mut self) -> bool {
        matches!(soon("the end of the stream", self.requests.message()).await, Ok(None))
    }

    pub(crate) async fn answer(&self, answer: A) {
        self.answers.send(Ok(answer)).await.expect("the client is gone");
    }

    pub(crate) async fn fail(self, status: Status) {
        self.answers.send(Err(status)).await.expect("the client is gone");
    }
}

pub(crate) type Publish = Call<v1::PublishStreamRequest, v1::PublishStreamResponse>;
pub(crate) type Consume = Call<v1::ConsumeRequest, v1::ConsumeResponse>;

struct Shared {
    publishes: mpsc::Sender<Publish>,
    consumes: mpsc::Sender<Consume>,
    unary: Mutex<HashMap<String, Unary>>,
    calls: Mutex<Vec<String>>,
    /// A method that is never answered.
    silent: Mutex<Option<&'static str>>,
    /// Ends the connections that are open.
    cuts: Mutex<Vec<oneshot::Sender<()>>>,
    dials: Mutex<u32>,
    /// Refuses so many dials first.
    refuse: Mutex<u32>,
    /// Speaks TLS by this.
    tls: Mutex<Option<tokio_rustls::TlsAcceptor>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// The peer.
pub(crate) struct Peer {
    shared: Arc<Shared>,
    publishes: mpsc::Receiver<Publish>,
    consumes: mpsc::Receiver<Consume>,
}

#[derive(Debug)]
struct Memory(Arc<Shared>);

impl Dialer for Memory {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> acb_sdk::transport::Dialing<'a> {
        Box::pin(async move {
            *self.0.dials.lock() += 1;
            {
                let mut refuse = self.0.refuse.lock();
                if *refuse > 0 {
                    *refuse -= 1;
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
            }
            let (near, far) = tokio::io::duplex(1 << 20);
            let (cut, cuts) = oneshot::channel();
            self.0.cuts.lock().push(cut);
            let shared = Arc::clone(&self.0);
            let tls = shared.tls.lock().clone();
            tokio::spawn(async move {
                let far: Box<dyn acb_sdk::transport::Io> = match tls {
                    None => Box::new(far),
                    Some(tls) => match tls.accept(far).await {
                        Ok(far) => Box::new(far),
                        Err(_) => return,
                    },
                };
                let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(
                    TokioIo::new(far),
                    hyper::service::service_fn(move |request| serve(Arc::clone(&shared), request)),
                );
                tokio::select! {
                    _ = serve => {}
                    _ = cuts => {}
                }
            });
            Ok(Box::new(near) as Box<dyn acb_sdk::transport::Io>)
        })
    }
}

impl Peer {
    pub(crate) fn new() -> Self {
        let (publish, publishes) = mpsc::channel(64);
        let (consume, consumes) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            publishes: publish,
            consumes: consume,
            unary: Mutex::default(),
            calls: Mutex::default(),
            silent: Mutex::default(),
            cuts: Mutex::default(),
            dials: Mutex::new(0),
            refuse: Mutex::new(0),
            tls: Mutex::new(None),
        });
        let peer = Self { shared, publishes, consumes };
        peer.on("/acb.v1.AgentRegistry/RegisterAgent", |_, request: v1::RegisterAgentRequest| {
            let agent = v1::Agent { spec: request.spec, incarnation: 7, status: 1, ..Default::default() };
            Ok(v1::RegisterAgentResponse { agent: Some(agent) })
        });
        peer
    }

    /// A client's builder that dials this peer.
    pub(crate) fn builder(&self) -> ClientBuilder {
        self.builder_at("acb://peer")
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.expect("connect")
    }

    /// Answers a unary method.
    pub(crate) fn on<Q, A>(
        &self,
        path: &str,
        answer: impl Fn(&MetadataMap, Q) -> Result<A, Status> + Send + Sync + 'static,
    ) where
        Q: Message + Default,
        A: Message,
    {
        let answer: Unary = Box::new(move |metadata, bytes| {
            let request = Q::decode(bytes).map_err(|e| Status::internal(e.to_string()))?;
            Ok(answer(metadata, request)?.encode_to_vec())
        });
        self.shared.unary.lock().insert(path.to_owned(), answer);
    }

    /// Never answers a unary method.
    pub(crate) fn silence(&self, path: &'static str) {
        *self.shared.silent.lock() = Some(path);
    }

    /// The next publish stream that the client opens, with its first frame read.
    pub(crate) async fn publish(&mut self) -> (Publish, v1::PublishOpen) {
        let mut call = soon("a publish stream", self.publishes.recv()).await.unwrap();
        let open = call.next().await.open.expect("the first frame has no open");
        call.answer(v1::PublishStreamResponse { opened: Some(v1::PublishOpened::default()), ..Default::default() })
            .await;
        (call, open)
    }

    /// The next consume stream that the client opens, with its first frame read and not answered.
    pub(crate) async fn consume(&mut self) -> (Consume, v1::ConsumeOpen) {
        let mut call = soon("a consume stream", self.consumes.recv()).await.unwrap();
        let open = call.next().await.open.expect("the first frame has no open");
        (call, open)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.lock().clear();
    }

    /// Refuses the next dials.
    pub(crate) fn refuse(&self, dials: u32) {
        *self.shared.refuse.lock() = dials;
    }

    pub(crate) fn dials(&self) -> u32 {
        *self.shared.dials.lock()
    }

    /// Speaks TLS 1.3 from now on, by a certificate for `name` that is its own root, which this gives as PEM.
    pub(crate) fn speak_tls(&self, name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        *self.shared.tls.lock() = Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        made.cert.pem()
    }

    /// A builder that dials this peer at another address.
    pub(crate) fn builder_at(&self, endpoint: &str) -> ClientBuilder {
        Client::builder(endpoint)
            .dialer(Arc::new(Memory(Arc::clone(&self.shared))))
            .credentials(Credentials::dev("default", "tester"))
    }

    /// How often a unary method was called.
    pub(crate) fn calls(&self, path: &str) -> usize {
        self.shared.calls.lock().iter().filter(|p| *p == path).count()
    }
}

async fn serve(
    shared: Arc<Shared>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    shared.calls.lock().push(path.clone());
    let silent = *shared.silent.lock() == Some(path.as_str());
    if silent {
        std::future::pending::<()>().await;
    }
    Ok(match path.as_str() {
        acb_proto::PUBLISH_STREAM => {
            tonic::server::Grpc::new(ProstCodec::default()).streaming(Hot(shared.publishes.clone()), request).await
        }
        acb_proto::CONSUME => {
            tonic::server::Grpc::new(ProstCodec::default()).streaming(Hot(shared.consumes.clone()), request).await
        }
        _ => tonic::server::Grpc::new(Plain).unary(Table(shared, path), request).await,
    })
}

struct Hot<Q, A>(mpsc::Sender<Call<Q, A>>);

impl<Q: Send + 'static, A: Send + 'static> tonic::server::StreamingService<Q> for Hot<Q, A> {
    type Response = A;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Q>>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let (answers, stream) = mpsc::channel(64);
            let (metadata, _, requests) = request.into_parts();
            let _ = calls.send(Call { metadata, requests, answers }).await;
            Ok(Response::new(Box::pin(ReceiverStream::new(stream)) as Self::ResponseStream))
        })
    }
}

struct Table(Arc<Shared>, String);

impl tonic::server::UnaryService<Vec<u8>> for Table {
    type Response = Vec<u8>;
    type Future = std::future::Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let table = self.0.unary.lock();
        let answer = match table.get(&self.1) {
            Some(answer) => answer(request.metadata(), request.get_ref()),
            None => Err(Status::unimplemented(self.1.clone())),
        };
        std::future::ready(answer.map(Response::new))
    }
}

/// Bytes in, bytes out.
#[derive(Clone, Copy)]
struct Plain;

impl tonic::codec::Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, bytes: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let len = bytes::Buf::remaining(bytes);
        Ok(Some(bytes::Buf::copy_to_bytes(bytes, len).to_vec()))
    }
}

/// Polls once.
pub(crate) fn poll_now<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// Acks messages as stored from a seq on.
pub(crate) fn ack(counter: u64, count: u32, first_seq: u64) -> v1::PublishStreamResponse {
    let ack = v1::PublishAck { counter, count, class: 1, first_seq, epoch: 1, durability: 3, ..Default::default() };
    v1::PublishStreamResponse { acks: vec![ack], ..Default::default() }
}

/// Refuses messages.
pub(crate) fn reject(counter: u64, count: u32, code: &str, retry: Option<u64>) -> v1::PublishStreamResponse {
    let error = v1::Error {
        code: code.into(),
        message: "scripted".into(),
        retryable: retry.is_some(),
        retry_after_ms: retry.unwrap_or(0),
        ..Default::default()
    };
    let reject = v1::PublishReject { counter, count, error: Some(error) };
    v1::PublishStreamResponse { rejects: vec![reject], ..Default::default() }
}

/// Answers the open of a consume stream.
pub(crate) fn opened(resumed: bool) -> v1::ConsumeResponse {
    let opened = v1::ConsumeOpened { resumed, class: 1, ack_wait_ms: 30_000, ..Default::default() };
    v1::ConsumeResponse { opened: Some(opened), ..Default::default() }
}

/// Delivers messages with rising seqs; payloads are the seqs.
pub(crate) fn delivery(delivery: u64, first_seq: u64, count: u32) -> v1::ConsumeResponse {
    let run = v1::DeliveryRun {
        first_seq,
        count,
        attempt: 1,
        epoch: 1,
        stored_at_ms: 1,
        from: "planner".into(),
        from_incarnation: 2,
    };
    let messages = (0..u64::from(count)).map(|i| v1::Message {
        topic: "t".into(),
        payload: (first_seq + i).to_string().into(),
        ..Default::default()
    });
    v1::ConsumeResponse { delivery, runs: vec![run], messages: messages.collect(), ..Default::default() }
}
