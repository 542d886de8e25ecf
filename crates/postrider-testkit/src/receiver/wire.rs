//! As much HTTP/1.1 as a receiver of webhooks needs.

use std::{
    io::{self, ErrorKind},
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::Request;

const MAX_HEAD_BYTES: usize = 256 * 1024;

pub(super) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    client_certificate: Option<Vec<u8>>,
    read: BytesMut,
    close: bool,
}

impl Connection {
    pub(super) async fn new(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Self> {
        // Without it answers wait for the client's acknowledgement of the last one.
        stream.set_nodelay(true).ok();
        let (stream, client_certificate) = match tls {
            None => (Either::Left(stream), None),
            Some(tls) => match tls.accept(stream).into_fallible().await {
                Ok(stream) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                    let shown = shown.map(|certificate| certificate.to_vec());
                    (Either::Right(Box::new(stream)), shown)
                }
                Err((error, mut stream)) => {
                    // Closing with something unread would reset the connection before the alert is read.
                    stream.shutdown().await?;
                    stream.read_to_end(&mut Vec::new()).await?;
                    return Err(error);
                }
            },
        };
        Ok(Self { stream, client_certificate, read: BytesMut::with_capacity(8 * 1024), close: false })
    }

    /// The next request, or nothing when the client has closed, or has been asked to.
    pub(super) async fn read_request(&mut self) -> io::Result<Option<Request>> {
        if self.close {
            return Ok(None);
        }
        let Some(head) = self.read_head().await? else { return Ok(None) };
        let (method, target, headers) = parse_head(&head)?;
        let header = |name: &str| {
            headers
                .iter()
                .find(|(given, _)| given.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        self.close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let body = if chunked {
            self.read_chunks().await?
        } else {
            let length = header("content-length").map_or(Ok(0), str::parse);
            let length = length.map_err(|_| invalid("a Content-Length that is no number"))?;
            self.take(length).await?
        };
        let received_at = SystemTime::now();
        let client_certificate = self.client_certificate.clone();
        let in_flight = 0;
        Ok(Some(Request {
            seq: 0,
            received_at,
            method,
            target,
            headers,
            body,
            client_certificate,
            in_flight,
        }))
    }

    async fn read_head(&mut self) -> io::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.read[searched..], b"\r\n\r\n") {
                let head = self.read.split_to(searched + at).freeze();
                self.read.advance(4);
                return Ok(Some(head));
            }
            if self.read.len() > MAX_HEAD_BYTES {
                return Err(invalid("a head above 256 KiB"));
            }
            searched = self.read.len().saturating_sub(3);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return if self.read.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    async fn read_chunks(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let line = self.read_line().await?;
            let size =
                line.split(|byte| *byte == b';').next().and_then(|size| std::str::from_utf8(size).ok());
            let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            let size = size.ok_or_else(|| invalid("a chunk without a size"))?;
            if size == 0 {
                // Trailers end with an empty line.
                while !self.read_line().await?.is_empty() {}
                return Ok(body.freeze());
            }
            body.extend_from_slice(&self.take(size).await?);
            self.take(2).await?;
        }
    }

    async fn read_line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(at) = find(&self.read, b"\r\n") {
                let line = self.read.split_to(at).freeze();
                self.read.advance(2);
                return Ok(line);
            }
            self.read_more().await?;
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        while self.read.len() < length {
            self.read_more().await?;
        }
        Ok(self.read.split_to(length).freeze())
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Waits, and tells whether the client is still there afterwards.
    pub(super) async fn stays_for(&mut self, time: Duration) -> bool {
        let leaves = async {
            // What the client sends meanwhile is kept for later.
            while matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {}
        };
        timeout(time, leaves).await.is_err()
    }

    /// Writes an answer in one piece.
    pub(super) async fn answer(
        &mut self,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut answer = Vec::with_capacity(128 + body.len());
        answer.extend_from_slice(format!("HTTP/1.1 {status} \r\n").as_bytes());
        for (name, value) in headers {
            answer.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        // These two never have a body, and 204 must not even tell its length.
        if status != 204 && status != 304 {
            answer.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(body);
        self.stream.write_all(&answer).await
    }

    /// Writes these bytes, and ends the connection in good order.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.shutdown().await
    }

    /// Writes these bytes one by one while the client stays, and ends the connection in good order.
    pub(super) async fn trickle(&mut self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        for byte in bytes {
            if !self.stays_for(pause).await {
                return Ok(());
            }
            self.stream.write_all(&[*byte]).await?;
        }
        self.stream.shutdown().await
    }

    /// Writes a body until the client goes away.
    pub(super) async fn endless(&mut self, chunk: &[u8], pause: Duration) -> io::Result<()> {
        self.stream.write_all(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        let mut piece = format!("{:x}\r\n", chunk.len()).into_bytes();
        piece.extend_from_slice(chunk);
        piece.extend_from_slice(b"\r\n");
        loop {
            self.stream.write_all(&piece).await?;
            if !pause.is_zero() && !self.stays_for(pause).await {
                return Ok(());
            }
        }
    }

    /// Makes the end of this connection a reset.
    pub(super) fn reset(&mut self) {
        self.close = true;
        // It may be closed already.
        let stream = match &self.stream {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_ref().0,
        };
        stream.set_zero_linger().ok();
    }
}

type Head = (String, String, Vec<(String, String)>);

fn parse_head(head: &[u8]) -> io::Result<Head> {
    // Header values may hold any byte; each becomes one character.
    let head: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0")) =
        (words.next(), words.next(), words.next())
    else {
        return Err(invalid("no HTTP/1 request line"));
    };
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok((method.to_owned(), target.to_owned(), headers))
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
