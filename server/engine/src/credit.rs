//! Windows: what may be with one session at once, and how much of a run fits.

use acb_types::frame;

use crate::api::Credit;

/// A session's credit and what of it is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    pub(crate) credit: Credit,
    /// Messages leased to the session.
    pub(crate) messages: u32,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Size of the message that did not fit last. Reading is not worth while until it does.
    pub(crate) wanted: u64,
}

impl Window {
    /// How many more messages may come; 0 also when only bytes are missing.
    pub(crate) fn room(&self) -> u32 {
        let messages = self.credit.messages.saturating_sub(self.messages);
        if messages == 0 || self.messages == 0 {
            return messages;
        }
        let bytes = self.room_bytes();
        if bytes == 0 || self.wanted > bytes { 0 } else { messages }
    }

    /// How many more bytes may come. The first message may have any size.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.credit.bytes.saturating_sub(self.bytes)
    }

    pub(crate) fn take(&mut self, messages: u32, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
        self.wanted = 0;
    }

    pub(crate) fn give(&mut self, messages: u32, bytes: u64) {
        debug_assert!(self.messages >= messages && self.bytes >= bytes, "{self:?} gives {messages}, {bytes}");
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// How many messages of a checked frame body fit, and the bytes they take. Looks inside only at an edge of the
    /// window. Notes what did not fit when nothing does.
    pub(crate) fn fit(&mut self, body: &[u8], count: u32, most: u32) -> (u32, usize) {
        let count_room = self.credit.messages.saturating_sub(self.messages).min(most);
        let bytes_room = self.room_bytes();
        if count <= count_room && body.len() as u64 <= bytes_room {
            return (count, body.len());
        }
        let (mut fitted, mut at) = (0, 0);
        while fitted < count.min(count_room) {
            let len = frame::prefix_len(&body[at..], 1);
            let alone = self.messages == 0 && fitted == 0;
            if (at + len) as u64 > bytes_room && !alone {
                if fitted == 0 {
                    self.wanted = len as u64;
                }
                break;
            }
            at += len;
            fitted += 1;
        }
        (fitted, at)
    }
}

#[cfg(test)]
mod tests {
    use acb_types::{Envelope, frame::encode};
    use bytes::BytesMut;

    use super::*;

    fn body(payloads: &[usize]) -> BytesMut {
        let mut out = BytesMut::new();
        for len in payloads {
            encode(&mut out, &Envelope { topic: "t".into(), payload: vec![7; *len].into(), ..Envelope::default() });
        }
        out
    }

    fn window(messages: u32, bytes: u64, used: (u32, u64)) -> Window {
        Window { credit: Credit { messages, bytes }, messages: used.0, bytes: used.1, wanted: 0 }
    }

    #[test]
    fn a_run_is_cut_where_messages_or_bytes_run_out() {
        let body = body(&[100; 8]);
        let one = body.len() / 8;
        for (mut window, fits) in [
            (window(8, 1 << 20, (0, 0)), 8),
            (window(5, 1 << 20, (0, 0)), 5),
            (window(5, 1 << 20, (3, 300)), 2),
            (window(5, 1 << 20, (5, 500)), 0),
            (window(2, 1 << 20, (5, 500)), 0),
            (window(64, one as u64 * 3, (0, 0)), 3),
            (window(64, one as u64 * 3 + 1, (0, 0)), 3),
            (window(64, one as u64 * 3, (1, one as u64)), 2),
            (window(64, 1, (0, 0)), 1),
            (window(64, 0, (0, 0)), 1),
            (window(0, 1 << 20, (0, 0)), 0),
            (window(64, 1, (1, 1)), 0),
        ] {
            let before = window;
            let (n, len) = window.fit(&body, 8, u32::MAX);
            assert_eq!((n, len), (fits, fits as usize * one), "{before:?}");
        }
        assert_eq!(window(8, 1 << 20, (0, 0)).fit(&body, 8, 3).0, 3, "the subscription's own cap");
    }

    #[test]
    fn a_message_that_does_not_fit_closes_the_window_until_there_is_room_for_it() {
        let body = body(&[100]);
        let mut w = window(64, 150, (1, 100));
        assert_eq!(w.room(), 63);
        assert_eq!(w.fit(&body, 1, 64).0, 0);
        assert_eq!(w.room(), 0, "reading it again would not help");
        w.give(1, 100);
        assert_eq!(w.room(), 64);
        assert_eq!(w.fit(&body, 1, 64).0, 1);
    }
}
