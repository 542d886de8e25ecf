use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::must;

/// How a receiver misbehaves before it has read a request.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Closes each connection as soon as it is there.
    Closes,
    /// Resets each connection as soon as it is there.
    Resets,
    /// Takes connections, and neither reads nor writes. Under TLS that is a handshake without an end.
    Silent,
    /// Takes no connection: its queue of one is full, and connecting takes as long as the client has patience.
    Absent,
    /// Writes these bytes as soon as the connection is there, and reads afterwards.
    Answers(Bytes),
    /// Writes these bytes when the head of a request is there, and reads its body afterwards.
    AnswersHead(Bytes),
}

/// A listener on a free loopback port with bad manners. It ends with the value.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    _end: DropGuard,
}

impl Hostile {
    /// Starts it.
    pub async fn start(manner: Manner) -> Self {
        let socket = must("make a socket", TcpSocket::new_v4());
        must("take a port", socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))));
        let backlog = if matches!(manner, Manner::Absent) { 1 } else { 1024 };
        let listener = must("listen", socket.listen(backlog));
        let address = must("listen", listener.local_addr());
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            match manner {
                Manner::Absent => {
                    // Two fill a queue of one; the system keeps one more than it was told.
                    let filling = [TcpStream::connect(address).await, TcpStream::connect(address).await];
                    ended.cancelled().await;
                    drop((filling, listener));
                }
                manner => {
                    ended.run_until_cancelled(accept(listener, manner)).await;
                }
            }
        });
        Self { address, _end: end.drop_guard() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path of its.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn accept(listener: TcpListener, manner: Manner) {
    let mut silent = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        match &manner {
            Manner::Closes => drop(stream),
            Manner::Resets => {
                // It may be closed already.
                stream.set_zero_linger().ok();
            }
            Manner::Silent | Manner::Absent => silent.push(stream),
            Manner::Answers(bytes) => {
                tokio::spawn(answer(stream, bytes.clone(), false));
            }
            Manner::AnswersHead(bytes) => {
                tokio::spawn(answer(stream, bytes.clone(), true));
            }
        }
    }
}

async fn answer(mut stream: TcpStream, bytes: Bytes, after_head: bool) {
    if after_head {
        let mut read = Vec::new();
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            // Byte by byte, so that the body stays where it is.
            match stream.read_u8().await {
                Ok(byte) if read.len() < 64 * 1024 => read.push(byte),
                _ => return,
            }
        }
    }
    // A client that does not stay for it is no trouble.
    if stream.write_all(&bytes).await.is_ok() {
        let read = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::time::timeout(Duration::from_secs(60), read).await.ok();
    }
}

/// A body that is about 158 times as long when it is unpacked: `gzip`, all of one byte, with at most `packed_bytes`.
pub fn gzip_bomb(packed_bytes: usize) -> Bytes {
    let mut bits = Bits::default();
    // The last block, with the fixed code.
    bits.push(0b011, 3);
    // The byte 0, and then 258 times what was one byte ago, again and again.
    bits.push_code(0x30, 8);
    while bits.bytes.len() < packed_bytes {
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    // The end of the block.
    bits.push_code(0, 7);
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    bomb.append(&mut bits.bytes);
    // The last bits, a checksum that is wrong, and a length that is: whoever gets there has unpacked it.
    bomb.extend_from_slice(&[bits.last, 0, 0, 0, 0, 0, 0, 0, 0]);
    bomb.into()
}

/// Bits, the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u8,
    filled: u32,
}

impl Bits {
    fn push(&mut self, bits: u16, count: u32) {
        for at in 0..count {
            self.last |= u8::from(bits >> at & 1 == 1) << self.filled;
            self.filled += 1;
            if self.filled == 8 {
                self.bytes.push(std::mem::take(&mut self.last));
                self.filled = 0;
            }
        }
    }

    /// Codes are written from their highest bit.
    fn push_code(&mut self, code: u16, count: u32) {
        self.push(code.reverse_bits() >> (16 - count), count);
    }
}
