//! A load balancer in front of Vault: it passes everything on, counts requests, and can answer by itself.

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
    answer: watch::Sender<Option<Arc<str>>>,
    seen: Arc<Mutex<Vec<Instant>>>,
}

impl Front {
    /// Starts one in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(None);
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
        self.answer.send_replace(Some(text.into()));
    }

    /// From now on Vault answers.
    pub fn pass_on(&self) {
        self.answer.send_replace(None);
    }

    /// When each request came in.
    pub fn requests(&self) -> Vec<Instant> {
        self.seen.lock().unwrap().clone()
    }
}

/// Passes on one connection. A request is small enough to come in one piece.
async fn pass(
    mut client: TcpStream,
    upstream: SocketAddr,
    answers: watch::Receiver<Option<Arc<str>>>,
    seen: &Mutex<Vec<Instant>>,
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
                if piece.windows(11).any(|text| text == b" HTTP/1.1\r\n") {
                    seen.lock().unwrap().push(Instant::now());
                }
                let answer = answers.borrow().clone();
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
