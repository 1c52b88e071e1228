//! Bytes that no library sends.

use crate::client::within;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub const UPGRADE: &str = "GET /v1/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: touchline.v1.json\r\n\r\n";

/// Sends a whole request; the answer's status and what follows the head.
pub async fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let answer = read_to_end(&mut stream).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

pub async fn get(address: SocketAddr, path: &str) -> u16 {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await.0
}

/// An upgraded raw stream.
pub async fn upgraded(address: SocketAddr, then: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(&[UPGRADE.as_bytes(), then].concat()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the head", stream.read_u8()).await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Everything until the peer closes.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset after the last byte is an end too.
    let _ = within("the end of the stream", stream.read_to_end(&mut all)).await;
    all
}

/// A client's frame, masked with zeros.
pub fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).expect("small")),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("below 64 KiB").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The code of the close frame at the end of what a server sent.
pub fn close_code(sent: &[u8]) -> Option<u16> {
    let mut rest = sent;
    while let [first, length, tail @ ..] = rest {
        let (length, tail) = match (*length, tail) {
            (126, [high, low, tail @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), tail),
            (length, tail) => (usize::from(length), tail),
        };
        if *first == 0x88 {
            return tail.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
        rest = tail.get(length..)?;
    }
    None
}
