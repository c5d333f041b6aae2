//! HTTP/1.1 by hand: clients that stop, dawdle, or do not listen.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connection to the HTTP edge.
pub struct Conversation {
    stream: TcpStream,
}

impl Conversation {
    pub async fn start(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    /// A `notes.create` whose body the server waits for, and of which nothing has been sent.
    pub async fn posting(address: SocketAddr, token: &str, length: usize) -> Self {
        let mut conversation = Self::start(address).await;
        let head = format!(
            "POST /trpc/notes.create HTTP/1.1\r\nhost: synap\r\nauthorization: Bearer {token}\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        conversation.send(head.as_bytes()).await.unwrap();
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut said = [0; 25];
        conversation.stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, go_on, "{}", String::from_utf8_lossy(&said));
        conversation
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Status and body of the answer.
    pub async fn answer(&mut self) -> io::Result<(u16, String)> {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return Ok((status, body.to_owned()));
                }
            }
            match self.stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
    }
}
