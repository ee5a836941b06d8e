//! A bidirectional stream of frames as bytes.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, client::Grpc, metadata::MetadataMap, transport::Channel};

use super::{codec::BytesCodec, failure::Failure};
use crate::wait::patience;

/// Frames of a stream that wait to be sent.
const QUEUE: usize = 64;
/// Largest frame that is taken: more than the bus may send.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// An open stream. Nothing reads it but the test: what is not asked for stays with the connection, as with a client
/// that does not read.
#[derive(Debug)]
pub struct HotStream {
    up: Option<mpsc::Sender<Bytes>>,
    down: Streaming<Bytes>,
}

impl HotStream {
    /// Opens the stream of a path. The answer's head has come when this returns.
    ///
    /// # Errors
    /// What the call was refused with.
    pub async fn open(channel: Channel, path: &'static str, metadata: MetadataMap) -> Result<Self, Failure> {
        let (up, frames) = mpsc::channel(QUEUE);
        let mut grpc = Grpc::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        grpc.ready().await.map_err(|e| Failure::lost(format!("not ready: {e}")))?;
        let mut request = tonic::Request::new(ReceiverStream::new(frames));
        *request.metadata_mut() = metadata;
        let opening = grpc.streaming(request, PathAndQuery::from_static(path), BytesCodec);
        let answer = match tokio::time::timeout(patience(), opening).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Failure::own("no_answer", format!("{path} was not opened within {:?}", patience()))),
        };
        Ok(Self { up: Some(up), down: answer.into_inner() })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// `connection_lost` when the stream ended.
    pub async fn send(&self, frame: Bytes) -> Result<(), Failure> {
        let up = self.up.as_ref().ok_or_else(|| Failure::own("closed", "this side was closed"))?;
        up.send(frame).await.map_err(|_| Failure::lost("the stream has ended"))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_message(&self, frame: &impl Message) -> Result<(), Failure> {
        self.send(frame.encode_to_vec().into()).await
    }

    /// The next frame; `None` when the other side ended in good order.
    ///
    /// # Errors
    /// What the stream ended with.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        Ok(self.down.message().await?)
    }

    /// As [`Self::next`], but not for ever.
    ///
    /// # Errors
    /// `no_answer` when nothing came in time.
    pub async fn next_within(&mut self, span: Duration) -> Result<Option<Bytes>, Failure> {
        match tokio::time::timeout(span, self.next()).await {
            Ok(frame) => frame,
            Err(_) => Err(Failure::own("no_answer", format!("no frame within {span:?}"))),
        }
    }

    /// Ends this side in good order.
    pub fn half_close(&mut self) {
        self.up = None;
    }
}
