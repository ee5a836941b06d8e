//! Contents of any size: the server's memory does not grow with them, and whoever is killed sends little again.

use std::{
    io::Write as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use acb_sdk::{Client, Credentials, Progress, Sha256Digest, UploadBuilder};
use acb_testkit::Server;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::watch,
};

use super::{asked, mib, options, resident};

/// Size of the content, unless `ACB_FOOTPRINT_UPLOAD_MIB` says otherwise.
const UPLOAD_MIB: u64 = 1024;
/// Most memory of the server meanwhile.
const RESIDENT_MAX: u64 = 300 << 20;
/// How often somebody is killed.
const KILLS: u64 = 20;
/// What may be on the way in the test of kills, and so be sent again after each.
const WINDOW: u64 = 4 << 20;

/// Bytes that nobody keeps, the same for the same seed.
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
    }
}

impl AsyncRead for Noise {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let n = self.left.min(out.remaining() as u64) as usize;
        let room = out.initialize_unfilled_to(n);
        self.fill(room);
        out.advance(n);
        self.left -= n as u64;
        Poll::Ready(Ok(()))
    }
}

async fn connect(server: &Server) -> Client {
    let url = format!("acb://{}", server.address());
    Client::builder(url).credentials(Credentials::dev("default", "archivist")).connect().await.unwrap()
}

/// The most memory that the server had while something was done.
async fn highest<T>(server: &Server, work: impl Future<Output = T>) -> (T, u64) {
    let mut highest = resident(server);
    let mut work = std::pin::pin!(work);
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            done = &mut work => return (done, highest.max(resident(server))),
            _ = looks.tick() => highest = highest.max(resident(server)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_goes_up_and_down_in_little_memory() {
    let server = options().start().await.unwrap();
    let client = connect(&server).await;
    let size = asked("ACB_FOOTPRINT_UPLOAD_MIB", UPLOAD_MIB) << 20;
    let started = std::time::Instant::now();
    let (uploaded, up) =
        highest(&server, async { client.streams().upload(Noise { state: 7, left: size }).await }).await;
    let uploaded = uploaded.unwrap();
    let up_in = started.elapsed();
    assert_eq!((uploaded.size, uploaded.sent_bytes), (size, size), "nothing was sent twice");
    let started = std::time::Instant::now();
    let mut nowhere = tokio::io::sink();
    let download = async { client.streams().download(&uploaded.context_id).to_writer(&mut nowhere).await };
    let (downloaded, down) = highest(&server, download).await;
    // The client has checked the digest of the whole against the context's.
    assert_eq!(downloaded.unwrap().sha256, uploaded.sha256);
    println!(
        "{:.0} MiB: up in {up_in:?} with {:.0} MiB resident, down in {:?} with {:.0} MiB",
        mib(size),
        mib(up),
        started.elapsed(),
        mib(down)
    );
    assert!(up.max(down) < RESIDENT_MAX, "{:.0} MiB resident", mib(up.max(down)));
}

/// What a killed client had done.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    begun_at: u64,
    server_kills: u64,
    last: Option<Progress>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_of_20_kills_at_most_a_window_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, token) = (folder.path().join("archive"), folder.path().join("archive.acb-upload"));
    let size = 84 << 20;
    let mut whole = Sha256::new();
    {
        let mut file = std::fs::File::create(&path).unwrap();
        let mut noise = Noise { state: 11, left: size };
        let mut block = vec![0; 1 << 20];
        for _ in 0..size >> 20 {
            noise.fill(&mut block);
            whole.update(&block);
            file.write_all(&block).unwrap();
        }
    }
    let whole = Sha256Digest(whole.finalize().into());
    let mut server = options().start().await.unwrap();
    let begin = |client: &Client| -> UploadBuilder {
        client.streams().upload_path(&path).chunk_bytes(256 << 10).window_bytes(WINDOW).resume_file(&token)
    };
    let mut kills = 0;
    let mut before: Option<Run> = None;
    let done = loop {
        let client = connect(&server).await;
        let (tell, mut progress) = watch::channel(None::<Progress>);
        let tell = Arc::new(tell);
        let upload = begin(&client).progress(move |p| {
            tell.send_replace(Some(p));
        });
        let mut task = tokio::spawn(upload.into_future());
        let mut run = Run::default();
        let ended = loop {
            // The next one dies somewhere in its share of the way.
            let dies_at = size * (kills + 1) / (KILLS + 2);
            let reached = async {
                let wanted = progress.wait_for(|p| p.is_some_and(|p| kills < KILLS && p.done_bytes >= dies_at)).await;
                match wanted.map(|p| *p) {
                    Ok(progress) => progress,
                    // The upload has ended: its task says how.
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = &mut task => break Some(ended.unwrap().unwrap()),
                reached = reached => run.last = reached,
            }
            if let Some(p) = run.last
                && run.begun_at == 0
            {
                run.begun_at = p.done_bytes - p.moved_bytes.min(p.done_bytes);
            }
            kills += 1;
            println!("kill {kills} at {:?}", run.last.map(|p| (p.done_bytes, p.moved_bytes)));
            if kills % 2 == 0 {
                server.kill().await.unwrap();
                server.restart().await.unwrap();
                run.server_kills += 1;
            } else {
                break None;
            }
        };
        if let Some(uploaded) = ended {
            let first = before.map_or(0, |run: Run| run.last.map_or(0, |p| p.done_bytes));
            let needed = size - first;
            assert!(
                uploaded.sent_bytes <= needed + (run.server_kills + 1) * WINDOW,
                "{} bytes were sent for {needed}, over {} kills of the server",
                uploaded.sent_bytes,
                run.server_kills
            );
            break uploaded;
        }
        task.abort();
        let _ = task.await;
        let last = progress.borrow().unwrap();
        let start = before.map_or(0, |run: Run| run.last.map_or(0, |p| p.done_bytes));
        assert!(
            last.moved_bytes <= last.done_bytes - start.min(last.done_bytes) + (run.server_kills + 2) * WINDOW,
            "{last:?} of a run that began at {start}, over {} kills of the server",
            run.server_kills
        );
        run.last = Some(last);
        before = Some(run);
        client.close().await;
    };
    assert_eq!(kills, KILLS, "the upload was over too soon");
    assert_eq!((done.size, done.sha256), (size, whole));
    assert!(!token.exists(), "a complete upload needs no token");
    let client = connect(&server).await;
    let copy = folder.path().join("copy");
    let downloaded = client.streams().download(&done.context_id).to_path(&copy).await.unwrap();
    assert_eq!(downloaded.sha256, whole);
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(&path).unwrap(), "byte for byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_on_over_kills_of_the_server_and_of_its_own_process() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let size = 64 << 20;
    let mut server = options().start().await.unwrap();
    let client = connect(&server).await;
    let uploaded = client.streams().upload(Noise { state: 13, left: size }).await.unwrap();
    let mut received = 0;
    for third in 1..=2 {
        let client = connect(&server).await;
        let (tell, mut progress) = watch::channel(0);
        let download = client.streams().download(&uploaded.context_id).progress(move |p| {
            tell.send_replace(p.done_bytes);
        });
        let task = tokio::spawn(download.to_path(copy.clone()));
        progress.wait_for(|done| *done >= size * third / 3).await.unwrap();
        if third == 1 {
            server.kill().await.unwrap();
            server.restart().await.unwrap();
            progress.wait_for(|done| *done >= size * third / 3 + (4 << 20)).await.unwrap();
        }
        task.abort();
        let _ = task.await;
        received = *progress.borrow();
        assert!(!copy.exists(), "a part is not the whole");
    }
    let client = connect(&server).await;
    let done = client.streams().download(&uploaded.context_id).to_path(copy.clone()).await.unwrap();
    assert_eq!(done.sha256, uploaded.sha256);
    assert!(done.received_bytes <= size - received + (8 << 20), "{} bytes came again", done.received_bytes);
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), size);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
}
