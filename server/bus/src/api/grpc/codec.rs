//! The codec of the two hot methods: frames go through as bytes.
//!
//! What comes in is handed on as one shared slice, without decoding; what goes out is a small encoded head followed by
//! message bytes that several subscribers share.

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Initial size of tonic's buffers, a stream and direction. Small: thousands of idle agents hold two streams each
/// (measured: 8 KiB buffers cost 31 KiB more a connection), and a busy stream grows its own.
const BUFFER_BYTES: usize = 1024;
/// Bytes after which tonic hands a coalesced buffer to the connection.
const YIELD_BYTES: usize = 32 * 1024;

/// A frame that goes out.
#[derive(Debug, Default)]
pub struct OutFrame {
    /// Encoded small fields.
    pub head: Bytes,
    /// Message bytes, in order.
    pub parts: SmallVec<[Bytes; 2]>,
}

impl OutFrame {
    /// A frame without messages.
    pub fn head(head: Bytes) -> Self {
        Self { head, parts: SmallVec::new() }
    }

    fn len(&self) -> usize {
        self.head.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Bytes in, [`OutFrame`] out.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

/// See [`FrameCodec`].
#[derive(Clone, Copy, Debug)]
pub struct FrameEncoder;

/// See [`FrameCodec`].
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder;

impl Codec for FrameCodec {
    type Encode = OutFrame;
    type Decode = Bytes;
    type Encoder = FrameEncoder;
    type Decoder = FrameDecoder;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder
    }

    fn decoder(&mut self) -> FrameDecoder {
        FrameDecoder
    }
}

impl Encoder for FrameEncoder {
    type Item = OutFrame;
    type Error = Status;

    fn encode(&mut self, frame: OutFrame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.len());
        out.put_slice(&frame.head);
        for part in &frame.parts {
            out.put_slice(part);
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Decoder for FrameDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = frame.remaining();
        Ok(Some(frame.copy_to_bytes(len)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
