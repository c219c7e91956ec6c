//! Frames in a body: a byte for the kind, four for the length (big endian), and the payload.
//!
//! What a job says comes in frames, since its two streams and its end share one body; and a program that is
//! not in the tree goes with its task in frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest payload. Senders of more send several frames; receivers never hold more than one.
pub const MAX_FRAME: usize = 1 << 20;

/// What is in front of the payload.
const HEAD: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: u8,
    /// At most [`MAX_FRAME`] bytes.
    pub payload: Bytes,
}

/// Frames of `GET /api/v1/jobs/{id}/output`.
pub mod output {
    /// Bytes of standard output.
    pub const STDOUT: u8 = 1;
    /// Bytes of standard error.
    pub const STDERR: u8 = 2;
    /// How the job ended, as JSON; the last frame. A body without it was cut off.
    pub const EXIT: u8 = 3;
}

/// Frames of `POST /api/v1/jobs`, `POST /api/v1/batches` and `PUT /api/v1/functions/{name}` with a program.
pub mod submit {
    /// The task, as the JSON of the body without a program; the first frame.
    pub const TASK: u8 = 1;
    /// Bytes of the program, in order.
    pub const MODULE: u8 = 2;
    /// Bytes of a list whose lines are the items of a batch, in order.
    pub const LINES: u8 = 3;
}

/// Frames of `POST /api/v1/functions/{name}/call`; what comes back are frames of [`output`].
pub mod call {
    /// What is asked for, as JSON; the first frame.
    pub const CALL: u8 = 1;
    /// Bytes of standard input; the end of the body is its end.
    pub const STDIN: u8 = 4;
}

/// The bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame claims to be longer than any may be.
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// The end came within a frame.
    #[error("the frames end in the middle of one")]
    CutOff,
}

/// The bytes of as many frames as `payload` needs; of one if it is empty.
pub fn encode(kind: u8, payload: &[u8]) -> Bytes {
    let n_frames = payload.len().div_ceil(MAX_FRAME).max(1);
    let mut bytes = BytesMut::with_capacity(payload.len() + n_frames * HEAD);
    let mut rest = payload;
    for _ in 0..n_frames {
        let (part, after) = rest.split_at(rest.len().min(MAX_FRAME));
        bytes.put_u8(kind);
        // At most MAX_FRAME.
        bytes.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        bytes.put_slice(part);
        rest = after;
    }
    bytes.freeze()
}

/// Makes frames out of bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    /// More bytes are here.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, once all of it is here.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((head, rest)) = self.0.split_at_checked(HEAD) else { return Ok(None) };
        let (kind, mut length) = (head[0], &head[1..]);
        let length = length.get_u32() as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.0.advance(HEAD);
        Ok(Some(Frame { kind, payload: self.0.split_to(length).freeze() }))
    }

    /// No more bytes will come.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::CutOff) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let bytes = [encode(1, b"one"), encode(2, b""), encode(3, b"three")].concat();
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push((frame.kind, frame.payload));
                }
            }
            assert_eq!(seen, [(1, "one".into()), (2, "".into()), (3, "three".into())]);
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn long_payloads_are_split_and_false_lengths_refused() {
        let mut decoder = Decoder::default();
        decoder.feed(&encode(1, &vec![7; MAX_FRAME + 1]));
        assert_eq!(decoder.next_frame().unwrap().unwrap().payload.len(), MAX_FRAME);
        assert_eq!(decoder.next_frame().unwrap().unwrap().payload.len(), 1);

        decoder.feed(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(0xffff_ffff)));
        assert_eq!(decoder.finish(), Err(FrameError::CutOff));
    }
}
