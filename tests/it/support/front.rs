//! A load balancer in front of Vault, or of the apiserver: it passes everything on, notes requests, can answer by
//! itself, and can hold one request or the answer to it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use lockstep_testbed::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::SOON;

/// It runs as long as the runtime of the test that started it.
pub struct Front {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    seen: Seen,
    trap: Arc<Mutex<Option<Trap>>>,
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

/// Where a request is held for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Before the server hears of it.
    Request,
    /// After the server has answered.
    Answer,
}

/// The next request that holds all of these words.
struct Trap {
    words: Vec<String>,
    pause: Pause,
    sprung: bool,
}

impl Trap {
    fn takes(&self, request: &str) -> bool {
        !self.sprung && self.words.iter().all(|word| request.contains(word))
    }
}

impl Front {
    /// Starts one in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(Answer::Vault);
        let (seen, trap) = (Seen::default(), Arc::default());
        let passing = Passing {
            upstream,
            answers,
            seen: Arc::clone(&seen),
            trap: Arc::clone(&trap),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = passing.clone();
                // A connection that breaks is noticed by the client.
                tokio::spawn(async move { drop(passing.pass(client).await) });
            }
        });
        Self {
            address,
            answer,
            seen,
            trap,
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

    /// Holds the next request in which all these words are, head and body taken together, or the answer to it.
    /// Its connection stays open until the client closes it.
    pub fn hold(&self, pause: Pause, words: &[impl ToString]) {
        let trap = Trap {
            words: words.iter().map(ToString::to_string).collect(),
            pause,
            sprung: false,
        };
        *self.trap.lock().unwrap() = Some(trap);
    }

    /// Waits until a request is held.
    pub async fn sprung(&self) {
        let sprung = async || {
            let trap = self.trap.lock().unwrap();
            let trap = trap.as_ref().ok_or("no trap is set")?;
            trap.sprung.then_some(()).ok_or("nothing came")
        };
        eventually(SOON, "a request is held", sprung).await.unwrap();
    }
}

#[derive(Clone)]
struct Passing {
    upstream: SocketAddr,
    answers: watch::Receiver<Answer>,
    seen: Seen,
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Passing {
    /// Passes on one connection.
    async fn pass(self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.upstream).await?;
        let mut response = vec![0; 64 * 1024];
        let mut request = Vec::with_capacity(64 * 1024);
        loop {
            tokio::select! {
                read = client.read_buf(&mut request) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    if !is_whole(&request) {
                        continue;
                    }
                    if let Some(answer) = self.own_answer(&request) {
                        client.write_all(answer.as_bytes()).await?;
                        return client.shutdown().await;
                    }
                    match self.trapped(&request) {
                        Some(Pause::Request) => {
                            self.spring();
                            return until_closed(&mut client).await;
                        }
                        Some(Pause::Answer) => {
                            server.write_all(&request).await?;
                            _ = server.read(&mut response).await?;
                            self.spring();
                            return until_closed(&mut client).await;
                        }
                        None => server.write_all(&request).await?,
                    }
                    request.clear();
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

    /// Notes the request; says what to answer if Vault is not to be asked.
    fn own_answer(&self, request: &[u8]) -> Option<String> {
        let head = String::from_utf8_lossy(request);
        let head = head.split("\r\n\r\n").next().unwrap_or_default();
        self.seen
            .lock()
            .unwrap()
            .push((Instant::now(), head.to_owned()));
        match &*self.answers.borrow() {
            Answer::Vault => None,
            Answer::Fixed(text) => Some(text.to_string()),
            Answer::Redirect(to) => {
                let path = head.split(' ').nth(1).unwrap_or_default();
                Some(format!(
                    "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ))
            }
        }
    }

    fn trapped(&self, request: &[u8]) -> Option<Pause> {
        let trap = self.trap.lock().unwrap();
        let trap = trap.as_ref()?;
        trap.takes(&String::from_utf8_lossy(request))
            .then_some(trap.pause)
    }

    fn spring(&self) {
        if let Some(trap) = self.trap.lock().unwrap().as_mut() {
            trap.sprung = true;
        }
    }
}

/// Whether the head and as much body as it announces have come.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|end| end == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}

async fn until_closed(client: &mut TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 1024];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}
