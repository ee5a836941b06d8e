//! A context of 64 MB goes up from a file and comes down again: in chunks, checked by SHA-256, and resumed by itself when a
//! connection breaks.
//!
//! Start a server first: `acb-server --dev`. Then: `cargo run -p acb-examples --bin stream-large-context [FILE]`.

use std::{error::Error, io, path::PathBuf};

use acb_sdk::{Client, Credentials};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("ACB_URL").unwrap_or_else(|_| "acb://127.0.0.1:7400".into());
    let client = Client::builder(url).credentials(Credentials::dev("default", "archivist")).connect().await?;

    let folder = std::env::temp_dir().join(format!("acb-sample-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let source = std::env::args().nth(1).map_or_else(|| numbers(folder.join("numbers.txt")), |file| Ok(file.into()))?;

    // Of any size: what is in memory is a window of chunks. With a resume file another process could go on with it, should
    // this one be stopped: run it again with the same two files.
    let uploaded = client
        .streams()
        .upload_path(&source)
        .kind("archive")
        .content_type("text/plain")
        .resume_file(folder.join("upload.json"))
        .await?;
    println!("uploaded {} bytes as one context, version {}", uploaded.size, uploaded.version);
    println!("its SHA-256 is {}", uploaded.sha256);

    // The whole into a file. It is there under its name once its digest is right, and not before.
    let copy = folder.join("copy");
    let downloaded = client.streams().download(&uploaded.context_id).to_path(&copy).await?;
    println!(
        "downloaded {} bytes, the digest is {}",
        downloaded.received_bytes,
        same(downloaded.sha256 == uploaded.sha256)
    );

    // Or only a part of it.
    let part = client.streams().download(&uploaded.context_id).range(0..16.min(uploaded.size)).bytes().await?;
    println!("its first bytes are {:?}", String::from_utf8_lossy(&part));

    std::fs::remove_dir_all(&folder)?;
    client.drain().await?;
    Ok(())
}

/// A file of eight million lines.
fn numbers(path: PathBuf) -> io::Result<PathBuf> {
    use io::Write as _;
    let mut file = io::BufWriter::new(std::fs::File::create(&path)?);
    for number in 0..8_000_000 {
        writeln!(file, "{number:07}")?;
    }
    file.flush()?;
    Ok(path)
}

fn same(equal: bool) -> &'static str {
    if equal { "the same" } else { "another" }
}
