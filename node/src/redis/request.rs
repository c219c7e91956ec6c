//! Requests as they come over the wire: arrays of bulk strings, or a bare line of words.
//!
//! Only this form is read, not RESP in general, for two reasons: every length is held against its limit before room is
//! made for what it announces, and what has been read of a request is not read again when more of it arrives.

use bytes::{Buf, Bytes, BytesMut};

use super::inline;

/// Arguments of one request: an `MSET` of as many keys as one commit takes, and the command.
const MAX_ARGS: usize = 2 * starfish_memory::MAX_BATCH_CELLS + 1;
/// Bytes of one argument. More than the memory takes, so that a value that is too long is refused in words and not
/// by the end of the connection.
const MAX_ARG: usize = 65 << 20;
/// Bytes of all arguments of one request: one such, and twice what one commit takes.
const MAX_REQUEST: usize = MAX_ARG + 2 * starfish_memory::MAX_BATCH_BYTES;
/// Who has not shown the password yet has no more to say than that.
const MAX_STRANGERS_ARGS: usize = 10;
/// The same for each of these arguments.
const MAX_STRANGERS_ARG: usize = 1024;
/// A line with a length.
const MAX_LENGTH_LINE: usize = 32;
/// A bare line of words, as a person types it.
const MAX_WORDS_LINE: usize = 4096;

/// A command and its arguments; never empty.
pub(super) type Request = Vec<Bytes>;

/// What is wrong with the bytes of a client. There is no way to go on after that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    Args,
    #[error("Protocol error: invalid bulk length")]
    Arg,
    #[error("Protocol error: unauthenticated multibulk length")]
    StrangersArgs,
    #[error("Protocol error: unauthenticated bulk length")]
    StrangersArg,
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NoArg(u8),
    #[error("Protocol error: an argument does not end with its length")]
    Unended,
    #[error("Protocol error: too big inline request")]
    LongLine,
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// A web page made a browser send this.
    #[error("Protocol error: this is no web server")]
    Http,
}

/// The request that is being read.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Whether the client has shown the password.
    is_known: bool,
    args: Vec<Bytes>,
    /// How many arguments are still to come.
    missing: usize,
    /// The length of the next one, once it is known.
    length: Option<usize>,
    bytes: usize,
}

impl Requests {
    /// From now on longer requests are read.
    pub(super) fn trust(&mut self) {
        self.is_known = true;
    }

    /// Whether a part of a request has been read.
    pub(super) fn is_amid(&self) -> bool {
        self.missing > 0
    }

    /// Takes the next request off `buffer`; `None` if it is not there as a whole.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.missing == 0 {
                match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {}
                    Some(_) => match words(buffer)? {
                        Some(words) if words.is_empty() => continue,
                        words => return Ok(words),
                    },
                }
                let Some(line) = line(buffer, MAX_LENGTH_LINE).map_err(|_| ProtocolError::Args)? else {
                    return Ok(None);
                };
                self.begin(&line)?;
            } else {
                let Some(arg) = self.arg(buffer)? else { return Ok(None) };
                self.args.push(arg);
                self.length = None;
                self.missing -= 1;
                if self.missing == 0 {
                    return Ok(Some(std::mem::take(&mut self.args)));
                }
            }
        }
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let count = number(&line[1..]).ok_or(ProtocolError::Args)?;
        // An array of nothing, or no array: Redis passes over them as well.
        let count = usize::try_from(count).unwrap_or(0);
        match self.is_known {
            true if count > MAX_ARGS => return Err(ProtocolError::Args),
            false if count > MAX_STRANGERS_ARGS => return Err(ProtocolError::StrangersArgs),
            _ => {}
        }
        (self.missing, self.bytes, self.length) = (count, 0, None);
        Ok(())
    }

    fn arg(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => match buffer.first() {
                None => return Ok(None),
                Some(b'$') => {
                    let line = line(buffer, MAX_LENGTH_LINE).map_err(|_| ProtocolError::Arg)?;
                    let Some(line) = line else { return Ok(None) };
                    self.length(&line)?
                }
                Some(other) => return Err(ProtocolError::NoArg(*other)),
            },
        };
        if buffer.len() < length + 2 {
            return Ok(None);
        }
        let arg = buffer.split_to(length).freeze();
        if !buffer.starts_with(b"\r\n") {
            return Err(ProtocolError::Unended);
        }
        buffer.advance(2);
        Ok(Some(arg))
    }

    fn length(&mut self, line: &[u8]) -> Result<usize, ProtocolError> {
        let length = number(&line[1..]).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= MAX_ARG).ok_or(ProtocolError::Arg)?;
        if !self.is_known && length > MAX_STRANGERS_ARG {
            return Err(ProtocolError::StrangersArg);
        }
        self.bytes += length;
        if self.bytes > MAX_REQUEST {
            return Err(ProtocolError::Arg);
        }
        self.length = Some(length);
        Ok(length)
    }
}

/// A line without its end.
fn line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, ProtocolError> {
    let seen = &buffer[..buffer.len().min(limit)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if buffer.len() < limit { Ok(None) } else { Err(ProtocolError::LongLine) };
    };
    let mut line = buffer.split_to(end + 1);
    line.truncate(end);
    if line.ends_with(b"\r") {
        line.truncate(end - 1);
    }
    Ok(Some(line))
}

fn number(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// A request without lengths: `PING`, typed into `nc`.
fn words(buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
    let Some(line) = line(buffer, MAX_WORDS_LINE)? else { return Ok(None) };
    let words = inline::words(&line)?;
    // A page in a browser can send text to this port: its first line, and one of its heads, look like these.
    match words.first() {
        Some(word) if word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:") => {
            Err(ProtocolError::Http)
        }
        _ => Ok(Some(words)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn read(bytes: &[u8], is_known: bool) -> Result<Vec<Request>, ProtocolError> {
        let (mut requests, mut buffer) =
            (Requests { is_known, ..Requests::default() }, BytesMut::from(bytes));
        std::iter::from_fn(|| requests.next(&mut buffer).transpose()).collect()
    }

    fn encoded(request: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
        for arg in request {
            bytes.extend(format!("${}\r\n", arg.len()).bytes().chain(arg.iter().copied()).chain(*b"\r\n"));
        }
        bytes
    }

    #[test]
    fn requests_are_arrays_or_lines() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n*0\r\n*-1\r\nset  k 'v w'\nPING\r\n*1\r\n$4";
        let read = read(bytes, true).unwrap();
        assert_eq!(read, [vec!["GET", "k"], vec!["set", "k", "v w"], vec!["PING"]]);
    }

    #[test]
    fn sizes_are_refused_before_they_are_taken() {
        for (bytes, error) in [
            ("*8194\r\n", ProtocolError::Args),
            ("*99999999999999999999\r\n", ProtocolError::Args),
            ("*x\r\n", ProtocolError::Args),
            ("*1\r\n$68157441\r\n", ProtocolError::Arg),
            ("*1\r\n$-1\r\n", ProtocolError::Arg),
            ("*1\r\n:1\r\n", ProtocolError::NoArg(b':')),
            ("*1\r\n$1\r\nab\r\n", ProtocolError::Unended),
            ("SET k \"a b\r\n", ProtocolError::Quotes),
            ("POST / HTTP/1.1\r\n", ProtocolError::Http),
            ("Host: localhost\r\n", ProtocolError::Http),
        ] {
            assert_eq!(read(bytes.as_bytes(), true), Err(error), "{bytes}");
        }
        assert_eq!(read(&[b'1'; 5000], true), Err(ProtocolError::LongLine));
        assert_eq!(read(&[b'*'; 40], true), Err(ProtocolError::Args));
        assert_eq!(read(b"*11\r\n", false), Err(ProtocolError::StrangersArgs));
        assert_eq!(read(b"*1\r\n$1025\r\n", false), Err(ProtocolError::StrangersArg));
        let full = encoded(&vec![vec![0; MAX_ARG / 8]; 10]);
        assert_eq!(read(&full, true), Err(ProtocolError::Arg));
    }

    proptest! {
        #[test]
        fn a_request_is_read_however_it_is_cut(
            sent in vec(vec(vec(any::<u8>(), 0..20), 1..5), 1..5),
            cut in 1usize..30,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|request| encoded(request)).collect();
            let (mut requests, mut buffer) = (Requests::default(), BytesMut::new());
            let mut read = Vec::new();
            for part in bytes.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(request) = requests.next(&mut buffer).unwrap() {
                    read.push(request);
                }
            }
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn garbage_is_refused_and_never_panics(bytes in vec(prop_oneof![
            any::<u8>(), Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', Just(b'-'),
        ], 0..200)) {
            let _ = read(&bytes, true);
            let _ = read(&bytes, false);
        }
    }
}
