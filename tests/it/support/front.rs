//! A load balancer in front of Vault: it passes everything on, notes requests, and can answer by itself.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// It runs as long as the runtime of the test that started it.
pub struct Front {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    seen: Seen,
}

/// Who answers.
#[derive(Clone)]
enum Answer {
    Vault,
    Fixed(Arc<str>),
    /// A redirect to the same path below this address.
    Redirect(Arc<str>),
}

/// Request line and headers of each request, and when it came in.
type Seen = Arc<Mutex<Vec<(Instant, String)>>>;

impl Front {
    /// Starts one in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(Answer::Vault);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (answers, seen) = (answers.clone(), Arc::clone(&shared));
                // A connection that breaks is noticed by the client.
                tokio::spawn(async move { drop(pass(client, upstream, answers, &seen).await) });
            }
        });
        Self {
            address,
            answer,
            seen,
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every request gets this status and body, and Vault hears of none.
    pub fn answer(&self, status: &str, content_type: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        self.answer.send_replace(Answer::Fixed(text.into()));
    }

    /// From now on every request is sent on (307) to the same path at `address`, as a standby of Vault does.
    pub fn redirect(&self, address: &str) {
        self.answer.send_replace(Answer::Redirect(address.into()));
    }

    /// From now on Vault answers.
    pub fn pass_on(&self) {
        self.answer.send_replace(Answer::Vault);
    }

    /// When each request came in.
    pub fn requests(&self) -> Vec<Instant> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(when, _)| *when).collect()
    }

    /// The request line and the headers of each request, in lower case.
    pub fn heads(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, head)| head.to_lowercase()).collect()
    }
}

/// Passes on one connection. A request is small enough to come in one piece.
async fn pass(
    mut client: TcpStream,
    upstream: SocketAddr,
    answers: watch::Receiver<Answer>,
    seen: &Mutex<Vec<(Instant, String)>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut request, mut response) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let piece = &request[..read?];
                if piece.is_empty() {
                    return Ok(());
                }
                let head = String::from_utf8_lossy(piece);
                let head = head.split("\r\n\r\n").next().unwrap_or_default();
                if head.contains(" HTTP/1.1\r\n") {
                    seen.lock().unwrap().push((Instant::now(), head.to_owned()));
                }
                let answer = match &*answers.borrow() {
                    Answer::Vault => None,
                    Answer::Fixed(text) => Some(text.to_string()),
                    Answer::Redirect(to) => {
                        let path = head.split(' ').nth(1).unwrap_or_default();
                        Some(format!(
                            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                        ))
                    }
                };
                if let Some(answer) = answer {
                    client.write_all(answer.as_bytes()).await?;
                    return client.shutdown().await;
                }
                server.write_all(piece).await?;
            }
            read = server.read(&mut response) => {
                let piece = &response[..read?];
                if piece.is_empty() {
                    return Ok(());
                }
                client.write_all(piece).await?;
            }
        }
    }
}
