//! Contents in chunks: what goes up, what is kept of it, what comes down.

use std::{collections::BTreeMap, sync::Arc};

use acb_proto::v1::{self, receive_context_response::Frame as Down, stream_context_request::Frame as Up};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{fault, wire};
use crate::{
    Fault,
    wire::{answered, down, instead_of, up, up_in},
};

const UPLOAD: &str = "/acb.v1.StreamService/StreamContext";
const DOWNLOAD: &str = "/acb.v1.StreamService/ReceiveContext";
const PROGRESS: &str = "/acb.v1.StreamService/GetStreamProgress";
const ABORT: &str = "/acb.v1.StreamService/AbortStream";

fn digest(bytes: &[u8]) -> bytes::Bytes {
    Sha256::digest(bytes).to_vec().into()
}

pub(super) const FAULTS: &[Fault] = &[
    fault(
        "chunk-digests-are-not-checked",
        "a chunk that was changed on its way is taken",
        &["chunks-that-do-not-fit-are-refused-alone"],
        || {
            wire([up(UPLOAD, |request: &mut v1::StreamContextRequest| {
                if let Some(Up::Chunk(chunk)) = &mut request.frame {
                    chunk.sha256 = digest(&chunk.data);
                }
            })])
        },
    ),
    fault(
        "whole-digests-are-not-checked",
        "a whole that is not what was said becomes a context",
        &["wrong-whole-ends-the-upload"],
        || {
            let chunks: Arc<Mutex<BTreeMap<u64, bytes::Bytes>>> = Arc::default();
            wire([up(UPLOAD, move |request: &mut v1::StreamContextRequest| match &mut request.frame {
                Some(Up::Chunk(chunk)) => drop(chunks.lock().insert(chunk.index, chunk.data.clone())),
                Some(Up::Complete(complete)) => {
                    let whole: Vec<u8> = chunks.lock().values().flatten().copied().collect();
                    complete.sha256 = digest(&whole);
                }
                _ => {}
            })])
        },
    ),
    fault(
        "received-maps-are-forgotten",
        "an upload that is resumed is told that nothing is there",
        &["upload-resumes-after-a-kill", "newer-connection-takes-the-upload"],
        || {
            wire([down(UPLOAD, |response: &mut v1::StreamContextResponse| {
                let progress = response.opened.as_mut().and_then(|opened| opened.progress.as_mut());
                progress.into_iter().for_each(|progress| progress.received.clear());
            })])
        },
    ),
    fault(
        "acknowledgements-name-the-next-chunk",
        "another chunk is acknowledged than the one that came",
        &["chunks-in-any-order"],
        || {
            wire([down(UPLOAD, |response: &mut v1::StreamContextResponse| {
                response.acks.iter_mut().for_each(|range| range.first_index += 1);
            })])
        },
    ),
    fault(
        "refusals-are-acknowledgements",
        "a chunk that was refused is acknowledged",
        &["chunks-that-do-not-fit-are-refused-alone", "chunk-repeats-safely"],
        || {
            wire([down(UPLOAD, |response: &mut v1::StreamContextResponse| {
                let refused = std::mem::take(&mut response.rejects).into_iter();
                response.acks.extend(refused.map(|r| v1::ChunkRange { first_index: r.index, count: 1 }));
            })])
        },
    ),
    fault(
        "progress-is-guessed",
        "an upload is told to be whole before it is",
        &["chunks-in-any-order", "upload-resumes-after-a-kill"],
        || {
            wire([down(PROGRESS, |response: &mut v1::GetStreamProgressResponse| {
                response.progress.iter_mut().for_each(|progress| progress.received_bytes = progress.total_bytes);
            })])
        },
    ),
    fault(
        "offers-are-believed",
        "chunks that were offered count as sent, whoever has them",
        &["what-the-bus-has-need-not-be-sent"],
        || {
            wire([up_in(UPLOAD, |conversation, request: &mut v1::StreamContextRequest| {
                let Some(Up::Offer(offer)) = &request.frame else { return };
                let (first_index, count) = (offer.first_index, offer.sha256.len() as u64);
                let acks = vec![v1::ChunkRange { first_index, count }];
                conversation.inject(&v1::StreamContextResponse { acks, ..Default::default() });
            })])
        },
    ),
    fault(
        "uploads-overwrite",
        "an upload for an older revision overwrites what was written meanwhile",
        &["upload-for-a-revision-that-is-gone-is-a-conflict"],
        || {
            wire([up(UPLOAD, |request: &mut v1::StreamContextRequest| {
                if let Some(Up::Open(open)) = &mut request.frame {
                    (open.force, open.if_rev) = (open.force || open.if_rev != 0, 0);
                }
            })])
        },
    ),
    fault(
        "uploads-make-new-contexts",
        "an upload for a revision makes another context",
        &["upload-makes-a-new-revision"],
        || {
            wire([up(UPLOAD, |request: &mut v1::StreamContextRequest| {
                if let Some(Up::Open(open)) = &mut request.frame
                    && open.if_rev != 0
                {
                    (open.if_rev, open.context_id) = (0, String::new());
                }
            })])
        },
    ),
    fault("aborts-are-not-done", "an upload that was given up goes on", &["aborted-uploads-are-over"], || {
        wire([answered(ABORT, |_| Some(v1::AbortStreamResponse {}))])
    }),
    fault(
        "uploads-never-expire",
        "an upload that nobody continued is told to be open",
        &["uploads-that-nobody-continues-expire"],
        || {
            wire([instead_of(PROGRESS, "stream_expired", |_| {
                let progress = v1::StreamProgress { state: v1::StreamState::Open as i32, ..Default::default() };
                v1::GetStreamProgressResponse { progress: Some(progress) }
            })])
        },
    ),
    fault(
        "uploads-of-others-are-shown",
        "how far somebody else's upload is, is told",
        &["uploads-are-their-owners"],
        || {
            wire([instead_of(PROGRESS, "stream_not_found", |_| v1::GetStreamProgressResponse {
                progress: Some(v1::StreamProgress::default()),
            })])
        },
    ),
    fault(
        "contents-change-on-their-way",
        "a byte of what comes down is another one, and its digest is of what comes",
        &["content-comes-down-as-it-went-up"],
        || {
            wire([down(DOWNLOAD, |response: &mut v1::ReceiveContextResponse| {
                if let Some(Down::Chunk(chunk)) = &mut response.frame {
                    let mut data = chunk.data.to_vec();
                    data.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                    (chunk.sha256, chunk.data) = (digest(&data), data.into());
                }
            })])
        },
    ),
    fault("ranges-begin-at-the-beginning", "where a range begins is not looked at", &["part-of-a-content"], || {
        wire([up(DOWNLOAD, |request: &mut v1::ReceiveContextRequest| request.offset_bytes = 0)])
    }),
    fault("ranges-run-to-the-end", "where a range ends is not looked at", &["part-of-a-content"], || {
        wire([up(DOWNLOAD, |request: &mut v1::ReceiveContextRequest| request.length_bytes = 0)])
    }),
    fault(
        "downloads-are-of-the-present",
        "a revision that is asked for is not looked at",
        &["upload-makes-a-new-revision", "deleted-contents-do-not-come-down"],
        || wire([up(DOWNLOAD, |request: &mut v1::ReceiveContextRequest| request.at_rev = 0)]),
    ),
];
