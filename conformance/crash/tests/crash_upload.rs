//! The issue's sentence about uploads, word for word: "After each of 20 random kills of client or server: bytes sent again
//! are at most one window, the digest is right, client memory at most window + 16 MiB". `ACB_CRASH_SEED` chooses content,
//! victims and moments.

use acb_crash::{
    seed,
    upload::{Plan, Stretch, Victim, mib, upload},
};
use acb_types::limits::UPLOAD_WINDOW_BYTES;

const KILLS: u64 = 20;
/// Twice a window from one kill to the next, so that sending all of it again would show.
const SIZE: u64 = (KILLS + 1) * 2 * WINDOW;
/// What `acb upload` may have on its way.
const WINDOW: u64 = UPLOAD_WINDOW_BYTES;
/// Memory of the client above what it needs for a tiny file.
const MEMORY: u64 = WINDOW + (16 << 20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_of_20_kills_of_client_or_server_an_upload_sends_at_most_a_window_again() {
    let seed = seed();
    println!("{:.0} MiB over {KILLS} kills (again: ACB_CRASH_SEED={seed})", mib(SIZE));
    let folder = tempfile::tempdir().unwrap();
    let found = upload(Plan { size: SIZE, kills: KILLS, seed }, folder.path()).await.unwrap();

    let (last, killed) = found.stretches.split_last().unwrap();
    let peak = found.stretches.iter().map(|s| s.client_peak).max().unwrap();
    let most = killed.iter().max_by_key(|s| s.again()).unwrap();
    let sum: u64 = found.stretches.iter().map(Stretch::again).sum();
    println!(
        "{} of clients and {} of the server: at most {:.2} MiB sent again because of one, {:.1} MiB in all; client at most \
         {:.1} MiB above the {:.1} MiB of a tiny upload; {:.1} s",
        killed.iter().filter(|s| s.ended_by == Some(Victim::Client)).count(),
        killed.iter().filter(|s| s.ended_by == Some(Victim::Server)).count(),
        mib(most.again()),
        mib(sum),
        mib(peak.saturating_sub(found.tiny_peak)),
        mib(found.tiny_peak),
        found.took.as_secs_f64(),
    );

    assert_eq!(killed.len() as u64, KILLS);
    for (n, stretch) in killed.iter().enumerate() {
        let n = n + 1;
        assert!(stretch.again() <= WINDOW + stretch.framing(), "kill {n}: {stretch}");
        assert!(stretch.again_arrived() <= WINDOW, "kill {n}, by the server's count: {stretch}");
        // Two counts that know nothing of each other.
        assert!(stretch.arrived <= stretch.left, "kill {n}: more came than was sent: {stretch}");
    }
    // Nobody was killed after it: nothing that was there was sent, and nothing twice.
    assert_eq!(last.arrived, last.gain, "{last}");
    assert!(last.again() <= last.framing(), "{last}");
    let gains: u64 = found.stretches.iter().map(|s| s.gain).sum();
    assert_eq!(gains, SIZE);
    assert_eq!(found.said, found.file, "the digest that the bus checked");
    assert_eq!(found.down, (found.file, SIZE), "what came down");
    assert!(
        peak - found.tiny_peak <= MEMORY,
        "{:.1} MiB above {:.1}",
        mib(peak - found.tiny_peak),
        mib(found.tiny_peak)
    );
    assert!(killed.iter().any(|s| s.again() > s.framing()), "no kill met a chunk on its way: this proves nothing");
}
