//! Connections that cost the server something and bring nothing: ten thousand idle ones, more than there may be, and those
//! whose handshake never ends.

use std::{net::SocketAddr, time::Duration};

use acb_server::edge::limits::TURNED_AWAY_MAX;
use acb_testkit::{Server, ServerOptions, wait::within};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use super::support::{client, good, metric, options, resident, send};
use crate::certified::Certified;

/// Idle connections at once.
const IDLE: usize = 10_000;
/// Connections that are made side by side.
const DIALLERS: usize = 100;
/// What one idle HTTP/2 connection may take of the server's memory. Measured: 20 KiB with a debug build.
const BYTES_PER_CONNECTION_MAX: u64 = 40 * 1024;
/// Longest for ten thousand handshakes on a machine that does other things as well.
const DIAL_WITHIN: Duration = Duration::from_mins(1);
/// Longest for the server to see that they have gone.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame, and one that acknowledges the peer's (RFC 9113, section 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
/// Body of the server's own SETTINGS: six bytes an entry.
const FIRST_SETTINGS_BYTES: usize = 4 * 6;

/// An HTTP/2 connection on which nobody asks anything, as a client's is between two calls.
async fn idle(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[PREFACE, SETTINGS, SETTINGS_ACK].concat()).await?;
    // The head of the server's own SETTINGS: the connection is taken.
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    assert_eq!((head[2], head[3]), (FIRST_SETTINGS_BYTES as u8, 4), "the server's SETTINGS");
    Ok(stream)
}

/// Raises this process's own limit of open files: a test holds as many sockets as the server.
fn raise_limit() -> u64 {
    acb_server::edge::fd_limit::raise().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_held_cheaply_and_closed_in_order() {
    let files = raise_limit();
    assert!(files > IDLE as u64 + 500, "the system allows a process {files} files: too few for this test");
    let mut server = options().real_clock().start().await.unwrap();
    let bus = client(&server, "worker").await;
    send(&bus, good("t")).await.unwrap();
    let before = resident(&server);
    let mut held = dial(&server, IDLE).await;
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n > IDLE as f64).await;
    let each = (resident(&server).saturating_sub(before)) / IDLE as u64;
    eprintln!("{IDLE} idle connections: {each} bytes of the server's memory each");
    assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes a connection");
    // Who works is served.
    send(&bus, good("t")).await.unwrap();
    // Half of them go by themselves.
    held.truncate(IDLE / 2);
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n <= IDLE as f64 / 2.0 + 10.0).await;
    send(&bus, good("t")).await.unwrap();
    // The others are told when the server stops (GOAWAY, type 7), and do not hold it up.
    let started = Instant::now();
    let mut answering = tokio::task::JoinSet::new();
    for stream in held {
        answering.spawn(async move { usize::from(live_on(stream).await.unwrap_or(false)) });
    }
    let status = server.stop().await.unwrap();
    assert!(status.success(), "{status}\n{}", server.log_tail());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let told: usize = answering.join_all().await.into_iter().sum();
    assert_eq!(told, IDLE / 2, "connections that were told");
}

/// Answers the server's questions (PING) until the connection ends; says whether it was told (GOAWAY) before.
async fn live_on(mut stream: TcpStream) -> std::io::Result<bool> {
    // The first head was read; its body follows.
    let (mut told, mut body) = (false, vec![0; FIRST_SETTINGS_BYTES]);
    stream.read_exact(&mut body).await?;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        body.resize(usize::from(head[1]) << 8 | usize::from(head[2]), 0);
        stream.read_exact(&mut body).await?;
        match (head[3], head[4]) {
            (6, 0) => {
                head[4] = 1;
                stream.write_all(&[&head[..], &body].concat()).await?;
            }
            (7, _) => told = true,
            _ => {}
        }
    }
    Ok(told)
}

async fn dial(server: &Server, count: usize) -> Vec<TcpStream> {
    let address = server.address();
    let dialler = |count: usize| async move {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            held.push(idle(address).await?);
        }
        std::io::Result::Ok(held)
    };
    let mut diallers = tokio::task::JoinSet::new();
    for _ in 0..DIALLERS {
        diallers.spawn(dialler(count / DIALLERS));
    }
    let all = within("the connections", DIAL_WITHIN, diallers.join_all()).await.unwrap();
    all.into_iter().flat_map(|held| held.unwrap_or_else(|e| panic!("{e}\n{}", server.log_tail()))).collect()
}

/// A question that anybody may ask.
const QUESTION: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";

/// What a connection hears until its end; `None` when it is closed without a word.
async fn told(mut stream: impl AsyncRead + Unpin) -> Option<String> {
    let mut answer = String::new();
    let ended = within("an end", CLOSE_WITHIN, stream.read_to_string(&mut answer)).await.unwrap();
    (ended.is_ok() && !answer.is_empty()).then_some(answer)
}

/// A server with room for so many connections.
async fn with_room_for(connections: usize) -> Server {
    options().real_clock().arg("--set").arg(format!("edge.connections_max={connections}")).start().await.unwrap()
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away_by_its_name_and_those_within_it_work_on() {
    let server = with_room_for(50).await;
    let bus = client(&server, "worker").await;
    let mut held = Vec::new();
    for _ in 0..49 {
        held.push(idle(server.address()).await.unwrap());
    }
    // One place is the worker's. Of 100 more at once most are told why, and what is too much for that is closed at once.
    let mut turned_away = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // Of those that are closed at once some are closed before they ask.
        let _ = stream.write_all(QUESTION).await;
        turned_away.push(stream);
    }
    let mut heard = 0;
    for stream in turned_away {
        if let Some(answer) = told(stream).await {
            assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("too_many_connections"), "{answer}");
            heard += 1;
        }
    }
    assert!(heard >= TURNED_AWAY_MAX, "{heard} were told why");
    assert_eq!(metric(&server, "acb_connections_refused_total", CLOSE_WITHIN, |n| n >= 100.0).await, 100.0);
    let log = server.log().unwrap();
    assert!(log.contains("too many connections") && log.contains("50"), "{log}");
    send(&bus, good("t")).await.unwrap();
    drop(held);
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n <= 1.0).await;
    idle(server.address()).await.unwrap();
}

#[tokio::test]
async fn who_is_turned_away_and_asks_nothing_is_closed_in_its_time_and_leaves_room_to_tell_others() {
    let server = with_room_for(1).await;
    let bus = client(&server, "worker").await;
    // Half say nothing, half begin HTTP/2 and never ask. All that can be told why are taken up by them.
    let mut silent = Vec::new();
    for n in 0..TURNED_AWAY_MAX {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        }
        silent.push(stream);
    }
    metric(&server, "acb_connections_refused_total", CLOSE_WITHIN, |n| n >= TURNED_AWAY_MAX as f64).await;
    let mut more = TcpStream::connect(server.address()).await.unwrap();
    let _ = more.write_all(QUESTION).await;
    assert_eq!(told(more).await, None, "told beside as many as are told at once");
    for mut stream in silent {
        // Reset or closed: it ends.
        let ended = within("the end of a silent one", CLOSE_WITHIN, stream.read_to_end(&mut Vec::new())).await;
        ended.expect("a connection without a place is held for as long as it likes").ok();
    }
    let mut next = TcpStream::connect(server.address()).await.unwrap();
    next.write_all(QUESTION).await.unwrap();
    let answer = told(next).await.expect("nothing was told after the silent ones had gone");
    assert!(answer.contains("too_many_connections"), "{answer}");
    send(&bus, good("t")).await.unwrap();
}

#[tokio::test]
async fn who_is_turned_away_over_tls_is_told_so_over_tls() {
    let tls = Certified::new();
    let server = with_tls(&tls).arg("--set").arg("edge.connections_max=1").start().await.unwrap();
    let mut only = tls.connect(server.address(), Some(b"http/1.1")).await.unwrap();
    only.write_all(QUESTION).await.unwrap();
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n >= 1.0).await;
    let mut stream = tls.connect(server.address(), Some(b"http/1.1")).await.unwrap();
    stream.write_all(QUESTION).await.unwrap();
    let answer = told(stream).await.expect("closed without a word");
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("too_many_connections"), "{answer}");
}

#[tokio::test]
async fn a_server_that_has_no_more_files_says_so_keeps_who_is_there_and_takes_others_again() {
    // The shell lowers the hard limit too, so that the server cannot raise it again.
    let few = ["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\""];
    let server = options().real_clock().wrapper(&few).start().await.unwrap();
    let bus = client(&server, "worker").await;
    send(&bus, good("t")).await.unwrap();
    let mut held = Vec::new();
    // The system queues those that the server cannot take: they connect, and hear nothing.
    let hears = Duration::from_millis(300);
    let mut unheard = 0;
    while unheard < 5 {
        assert!(held.len() < 400, "200 files, and {} connections", held.len());
        match tokio::time::timeout(hears, idle(server.address())).await {
            Ok(Ok(stream)) => held.push(stream),
            Ok(Err(_)) | Err(_) => unheard += 1,
        }
    }
    let log = server.log().unwrap();
    assert!(log.contains("no connection taken") && log.contains("Too many open files"), "{log}");
    send(&bus, good("t")).await.unwrap();
    drop(held);
    within("a connection after they have gone", CLOSE_WITHIN, async {
        while tokio::time::timeout(hears, idle(server.address())).await.map_or(true, |r| r.is_err()) {}
    })
    .await
    .unwrap();
    send(&bus, good("t")).await.unwrap();
}

/// Sends a byte every so often, for ever; answers with how long the server suffered it.
async fn trickle(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut rest = bytes.iter().cycle();
    let mut heard = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut heard) => if !matches!(read, Ok(1..)) { return started.elapsed() },
            () = tokio::time::sleep(Duration::from_millis(40)) => {
                if stream.write_all(&[*rest.next().unwrap()]).await.is_err() {
                    return started.elapsed();
                }
            }
        }
    }
}

/// Bound of a handshake in these tests, and what a slow machine may add to it.
const HANDSHAKE: Duration = Duration::from_millis(500);
const HANDSHAKE_AT_MOST: Duration = Duration::from_secs(5);

/// Checks that a connection is ended by the handshake's bound, and not before it.
async fn is_cut(what: &str, mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let held = within(what, HANDSHAKE_AT_MOST, trickle(&mut stream, bytes)).await;
    let held = held.unwrap_or_else(|_| panic!("{what} holds a connection for as long as it likes"));
    assert!(held >= HANDSHAKE / 2, "{what} was ended after {held:?}, before its time");
}

#[tokio::test]
async fn a_handshake_that_trickles_in_ends_with_its_time() {
    let bound = format!("edge.handshake_timeout={}ms", HANDSHAKE.as_millis());
    let server = options().real_clock().arg("--set").arg(&bound).start().await.unwrap();
    let endless_head = [&b"GET /health HTTP/1.1\r\nhost: x\r\nx: "[..], &[b'y'; 200]].concat();
    for (what, said, then) in [
        ("nothing, then the preface byte by byte", &b""[..], PREFACE),
        ("the first three bytes of the preface, then no more", b"PRI", b""),
        ("the preface but its last byte", &PREFACE[..PREFACE.len() - 1], b""),
        ("a head byte by byte", b"", &endless_head),
        ("a head that never ends", b"POST /x HTTP/1.1\r\nhost: x\r\nx: ", b"y"),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(said).await.unwrap();
        if then.is_empty() {
            let mut rest = Vec::new();
            let closed = within(what, HANDSHAKE_AT_MOST, stream.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "{what} holds a connection for as long as it likes");
        } else {
            is_cut(what, stream, then).await;
        }
    }
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n == 0.0).await;
    let bus = client(&server, "worker").await;
    send(&bus, good("t")).await.unwrap();
}

/// A server with TLS, to be set further.
fn with_tls(certified: &Certified) -> ServerOptions {
    let settings = certified.settings().map(|(key, value)| format!("{key}={value}"));
    settings.iter().fold(options().with_credentials().real_clock(), |options, set| options.arg("--set").arg(set))
}

#[tokio::test]
async fn a_tls_handshake_that_trickles_in_or_is_followed_by_nothing_ends_with_its_time() {
    let tls = Certified::new();
    let bound = format!("edge.handshake_timeout={}ms", HANDSHAKE.as_millis());
    let server = with_tls(&tls).arg("--set").arg(&bound).start().await.unwrap();
    // The head of a record that announces a long message.
    let hello = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[7; 200]].concat();
    is_cut("a client's hello byte by byte", TcpStream::connect(server.address()).await.unwrap(), &hello).await;
    // The handshake itself is in order, and the protocol's own is never begun.
    for protocol in [Some(&b"h2"[..]), Some(b"http/1.1"), None] {
        let mut stream = tls.connect(server.address(), protocol).await.unwrap();
        let mut rest = Vec::new();
        let closed = within("its end", HANDSHAKE_AT_MOST, stream.read_to_end(&mut rest)).await;
        let protocol = protocol.map(String::from_utf8_lossy);
        assert!(closed.is_ok(), "a client that agrees on {protocol:?} and says nothing holds a connection for ever");
    }
    metric(&server, "acb_connections", CLOSE_WITHIN, |n| n == 0.0).await;
}

#[tokio::test]
async fn a_connection_that_answers_no_question_is_cut_by_the_keep_alive() {
    let server = options()
        .real_clock()
        .arg("--set")
        .arg("edge.keep_alive_interval=200ms")
        .arg("--set")
        .arg("edge.keep_alive_timeout=300ms")
        .env("ACB_LOG_FILTER", "debug")
        .start()
        .await
        .unwrap();
    // The start of a request whose head goes on in frames that never come (CONTINUATION, RFC 9113, section 6.10), and
    // one that has said nothing at all behind its preface.
    let half_a_head = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
    for (what, said) in [
        ("half a head", [PREFACE, SETTINGS, &half_a_head].concat()),
        ("a preface and no SETTINGS", PREFACE.to_vec()),
        ("a connection that is idle and deaf", [PREFACE, SETTINGS, SETTINGS_ACK].concat()),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut rest = Vec::new();
        let closed = within(what, HANDSHAKE_AT_MOST, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{what} holds a connection for as long as it likes");
    }
    let log = server.log().unwrap();
    assert!(log.contains("keep-alive timed out"), "{log}");
}
