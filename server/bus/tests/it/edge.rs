//! The port: TLS, protocols, bounds, and what is answered to bytes that are no request.

use std::{io, time::Duration};

use acb_proto::v1;
use acb_types::ErrorCode;
use bytes::{Buf, BufMut};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use crate::{
    certified::Certified,
    support::{Client, Failure, Identity, Server, Setup, failure, http, refused, spec},
};

fn certified_setup(certified: &Certified) -> Setup {
    let [certificate, key] = certified.settings();
    Setup::default().set(certificate.0, certificate.1).set(key.0, key.1)
}

/// A channel over a connection that was made by hand.
async fn channel_over(stream: TlsStream<TcpStream>) -> Channel {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::other("one connection only")) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn over_tls_1_3_a_client_logs_in_registers_and_stays() {
    let certified = Certified::new();
    let server = certified_setup(&certified).start().await;
    let stream = certified.connect(server.address(), Some(b"h2")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let channel = channel_over(stream).await;
    let anybody = Client { channel: channel.clone(), identity: Identity::Nobody };
    let tokens = anybody.login(&server.admin_key, "admin").await.unwrap();
    let admin = Client { channel, identity: Identity::Token(tokens.access_token) };
    for i in 0..20 {
        admin.register(spec(&format!("a{i}"))).await.unwrap();
    }
}

#[tokio::test]
async fn http_1_comes_over_tls_too() {
    let certified = Certified::new();
    let server = certified_setup(&certified).start().await;
    let mut stream = certified.connect(server.address(), Some(b"http/1.1")).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    // A peer that closes without a goodbye is an error of rustls, after everything was read.
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("serving"), "{text}");
}

/// The first message of a client that speaks TLS 1.2 and nothing newer: no `supported_versions`.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    // ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM.
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]);
    body.extend([1, 0]);
    let extensions = [
        // Groups: x25519, P-256. Signatures: ecdsa-p256, rsa-pss. Points: uncompressed.
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..],
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
        &[0, 11, 0, 2, 1, 0],
    ]
    .concat();
    body.put_u16(extensions.len() as u16);
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.put_u16(body.len() as u16);
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.put_u16(handshake.len() as u16);
    record.extend(handshake);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_that_says_so() {
    let certified = Certified::new();
    let server = certified_setup(&certified).start().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // Record of type alert; fatal; protocol_version (RFC 8446, section 6.2).
    assert_eq!((answer.first(), answer.get(5..7)), (Some(&21), Some(&[2, 70][..])), "{answer:?}");
    // And plain text is no way round it.
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|w| w == b"HTTP"), "{answer:?}");
    let counted = || async { server.metrics().await.contains("acb_connections_refused_total 2") };
    crate::support::wait_until("both refusals are counted", counted, |both| *both).await;
}

#[tokio::test]
async fn one_port_speaks_http_1_and_http_2() {
    let server = Server::start().await;
    let answer = http(server.address(), "GET", "/health").await;
    assert!(answer.status == 200 && answer.body.contains("serving"), "{answer:?}");
    let mut http2 = server.channel();
    let request =
        http::Request::get(format!("http://{}/health", server.address())).body(tonic::body::Body::empty()).unwrap();
    let ready = tower::ServiceExt::ready(&mut http2).await.unwrap();
    let response = tower::Service::call(ready, request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_callers_language() {
    let server = Server::start().await;
    let answer = http(server.address(), "GET", "/api/v9/nothing").await;
    assert_eq!(answer.status, 404);
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some("route_not_found"), Some(404)));
    // In gRPC, with the status that foreign clients look for.
    for path in ["/acb.v1.Nothing/At", "/acb.v1.AgentRegistry/Nothing"] {
        let told = raw_call(&server, path, &[]).await.unwrap_err();
        assert_eq!((told.code(), told.status), (ErrorCode::UnsupportedFeature, tonic::Code::Unimplemented), "{path}");
    }
}

/// Sends bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
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

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut out = vec![0; from.remaining()];
        from.copy_to_slice(&mut out);
        Ok(Some(out))
    }
}

async fn raw_call(server: &Server, path: &'static str, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut grpc = tonic::client::Grpc::new(server.channel());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    let outcome = grpc.unary(Request::new(body.to_vec()), path, Raw).await;
    outcome.map(tonic::Response::into_inner).map_err(|status| failure(&status))
}

#[tokio::test]
async fn bytes_that_are_no_request_get_a_code_like_every_failure() {
    let server = Server::start().await;
    let login = "/acb.v1.AuthService/Login";
    for (what, body, code) in [
        ("a truncated field", vec![0x0a, 50, 1], ErrorCode::MalformedFrame),
        ("a wire type that is none", vec![0x0f], ErrorCode::MalformedFrame),
        ("a text that is not UTF-8", vec![0x12, 2, 0xff, 0xfe], ErrorCode::InvalidUtf8),
        ("more than any request has", vec![0; 5 << 20], ErrorCode::FrameTooLarge),
    ] {
        let told = raw_call(&server, login, &body).await.expect_err(what);
        assert_eq!(told.code(), code, "{what}: {told:?}");
    }
    // The server lives on.
    server.login(&server.admin_key, "admin").await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_in_time_is_closed() {
    let server = Setup::default().set("edge.handshake_timeout", "100ms").start().await;
    for said in [&b""[..], b"P", b"PR", b"GET /health HT"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{said:?} was left open");
    }
}

#[tokio::test]
async fn connections_are_bounded_and_room_comes_back() {
    let server = Setup::dev().set("edge.connections_max", 3).start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let held: Vec<_> = {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut some = [0; 16];
            stream.read_exact(&mut some).await.unwrap();
            held.push(stream);
        }
        held
    };
    // Who comes now is told why, in the language that it speaks, and the connection is closed.
    assert_eq!(refused(server.dev("default", "a").heartbeat("a", 2).await), ErrorCode::TooManyConnections);
    let mut more = TcpStream::connect(server.address()).await.unwrap();
    more.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut told = String::new();
    more.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 429") && told.contains("\"code\":\"too_many_connections\""), "{told}");
    // Who is in is not hurt.
    bus.heartbeat("a", 1).await.unwrap();
    let metrics = server.metrics().await;
    assert!(metrics.contains("acb_connections 3") && metrics.contains("acb_connections_refused_total 2"), "{metrics}");
    drop(held);
    let room = || async { server.metrics().await.contains("acb_connections 1") };
    crate::support::wait_until("room", room, |there| *there).await;
    assert_eq!(http(server.address(), "GET", "/health").await.status, 200);
}

#[tokio::test]
async fn a_header_list_over_its_bound_is_refused() {
    let server = Setup::dev().start().await;
    let mut client = server.anybody().agents();
    let mut request = Request::new(v1::GetAgentRequest { agent_id: "a".to_owned() });
    request.metadata_mut().insert("x-long", "x".repeat(20_000).parse().unwrap());
    assert!(client.get_agent(request).await.is_err());
    assert_eq!(refused(server.anybody().get_agent("a").await), ErrorCode::AgentNotFound, "the server lives on");
}

#[tokio::test]
async fn a_deadline_of_the_caller_holds_on_the_server() {
    let server = Setup::dev().start().await;
    let mut request = Request::new(v1::GetAgentRequest { agent_id: "a".to_owned() });
    request.metadata_mut().insert("grpc-timeout", "0n".parse().unwrap());
    let status = server.anybody().agents().get_agent(request).await.unwrap_err();
    assert!(matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{status:?}");
}

#[tokio::test]
async fn a_server_without_clients_stops_at_once_and_cleanly() {
    let server = Server::start().await;
    let started = std::time::Instant::now();
    assert_eq!(server.stop_gently().await, acb_server::Clean::Yes);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_client_does_not_hold_a_stop_up() {
    let server = Setup::dev().start().await;
    let bus = server.dev("default", "a");
    bus.register(spec("a")).await.unwrap();
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    let started = std::time::Instant::now();
    assert_eq!(server.stop_gently().await, acb_server::Clean::Yes);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop((idle, bus));
}
