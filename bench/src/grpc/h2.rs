//! As much of HTTP/2 as a load generator needs: requests written whole, answers counted by frame.
//!
//! A full client costs as much CPU as the server it loads; then one core could not saturate another.
//! Header blocks of answers are not decoded: an answer is OK if a message came before the end of its
//! stream, which of gRPC's unary answers only those have that succeeded.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW: u32 = (1 << 31) - 1;

/// A stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When its request was due, as it was given.
    pub due: u64,
    /// Whether a message came.
    pub ok: bool,
}

/// A stream in flight.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    due: u64,
    message: bool,
}

/// One connection. Its socket does not block.
pub struct Connection {
    socket: TcpStream,
    unsent: Vec<u8>,
    received: Vec<u8>,
    headers: Vec<u8>,
    next_id: u32,
    /// By half the stream's id; far more than may be in flight at once.
    streams: Vec<Stream>,
    in_flight: u32,
    most: u32,
    /// What the server still takes of DATA on this connection.
    window: i64,
}

const SLOTS: usize = 1 << 16;

/// The request message: length-prefixed, a `StringValue` "Ada".
const MESSAGE: &[u8] = &[0, 0, 0, 0, 5, 0x0a, 3, b'A', b'd', b'a'];
const MESSAGE_LEN: i64 = 10;

impl Connection {
    /// Connects; at most `most` streams at once, and no more than the server allows.
    pub fn open(port: u16, most: u32) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).context("cannot connect")?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut unsent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(WINDOW.to_be_bytes());
        frame(&mut unsent, SETTINGS, 0, 0, &settings);
        // All that a run will ever receive.
        frame(&mut unsent, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        Ok(Self {
            socket,
            unsent,
            received: Vec::new(),
            headers: header_block(port),
            next_id: 1,
            streams: vec![Stream::default(); SLOTS],
            in_flight: 0,
            most,
            window: 65_535,
        })
    }

    /// Whether a request may be sent now.
    pub fn has_room(&self) -> bool {
        self.in_flight < self.most && self.window >= MESSAGE_LEN
    }

    /// Writes a request that was due at `due`; `flush` sends it.
    pub fn request(&mut self, due: u64) {
        let id = self.next_id;
        self.next_id += 2;
        frame(&mut self.unsent, HEADERS, END_HEADERS, id, &self.headers);
        frame(&mut self.unsent, DATA, END_STREAM, id, MESSAGE);
        self.window -= MESSAGE_LEN;
        self.in_flight += 1;
        *self.stream(id) = Stream { due, message: false };
    }

    fn stream(&mut self, id: u32) -> &mut Stream {
        &mut self.streams[id as usize / 2 % SLOTS]
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Takes what has come, and tells of each stream that has ended.
    pub fn receive(&mut self, mut ended: impl FnMut(Ended)) -> Result<()> {
        let mut buffer = [0; 1 << 14];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(n) => {
                    self.received.extend(&buffer[..n]);
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW;
            self.take(head[3], head[4], id, payload, &mut ended)?;
            rest = after;
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        ended: &mut impl FnMut(Ended),
    ) -> Result<()> {
        match kind {
            DATA if payload.len() >= 5 => self.stream(id).message = true,
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
                    if u16::from_be_bytes([setting[0], setting[1]]) == MAX_CONCURRENT_STREAMS {
                        self.most = self.most.min(value);
                    }
                }
                frame(&mut self.unsent, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(&mut self.unsent, PING, ACK, 0, payload),
            WINDOW_UPDATE if id == 0 => {
                let increment = payload.first_chunk::<4>().context("a short WINDOW_UPDATE")?;
                self.window += i64::from(u32::from_be_bytes(*increment));
            }
            GOAWAY => bail!("the server said goodbye: {}", String::from_utf8_lossy(payload)),
            _ => {}
        }
        let last = (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0;
        if last || kind == RST_STREAM {
            self.in_flight -= 1;
            let stream = *self.stream(id);
            ended(Ended { due: stream.due, ok: stream.message && kind != RST_STREAM });
        }
        Ok(())
    }
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    to.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    to.extend([kind, flags]);
    to.extend(id.to_be_bytes());
    to.extend(payload);
}

/// The headers of every request, by the static table alone, so that requests need no state.
fn header_block(port: u16) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    for (name, value) in [
        (&[0x04][..], "/bench.Hello/Hello"),
        (&[0x01], &format!("127.0.0.1:{port}")),
        (&[0x0f, 0x10], "application/grpc"),
        (b"\x00\x02te", "trailers"),
    ] {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_length_type_flags_id_payload() {
        let mut to = Vec::new();
        frame(&mut to, HEADERS, END_HEADERS, 0x0102_0304, b"ab");
        assert_eq!(to, [0, 0, 2, 1, 4, 1, 2, 3, 4, b'a', b'b']);
    }

    #[test]
    fn the_message_is_as_long_as_it_says() {
        assert_eq!(MESSAGE.len(), usize::try_from(MESSAGE_LEN).unwrap());
        assert_eq!(MESSAGE.len(), 5 + usize::from(MESSAGE[4]));
    }

    #[test]
    fn headers_are_literals_by_the_static_table() {
        assert!(header_block(80).starts_with(b"\x83\x86\x04\x12/bench.Hello/Hello\x01\x0c127.0.0.1:80"));
    }
}
