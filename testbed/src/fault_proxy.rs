//! Effects: network, threads — a TCP proxy on loopback that fails on command, in front of a real server.
//!
//! It has a thread and a runtime of its own, so that it outlives the runtime of the test that started it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{oneshot, watch},
};

/// What the proxy does to connections, those that are open and those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it passes everything on.
    Pass,
    /// Connections are reset at once.
    Refuse,
    /// Connections are accepted and nothing moves any more; it moves again when the fault is lifted.
    Hang,
    /// Every piece of data is late by this much, in each direction.
    Latency(Duration),
    /// A connection is reset after this many bytes from the server.
    CutAfterBytes(u64),
}

/// What has gone through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Bytes from clients to the server.
    pub sent: u64,
    /// Bytes from the server to clients.
    pub received: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    counters: Arc<Counters>,
    /// Dropping it ends the proxy's runtime.
    _running: oneshot::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl FaultProxy {
    /// Starts a proxy in front of `upstream`, passing everything on.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::Pass);
        let counters = Arc::new(Counters::default());
        let (running, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::clone(&counters);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, upstream, faults, shared) => {}
                    // The handle was dropped.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            address,
            fault,
            counters,
            _running: running,
        })
    }

    /// Where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections are open now.
    pub fn connections(&self) -> u64 {
        self.traffic().open
    }

    /// What has gone through so far.
    pub fn traffic(&self) -> Traffic {
        let Counters {
            accepted,
            open,
            sent,
            received,
        } = &*self.counters;
        Traffic {
            accepted: accepted.load(Ordering::Relaxed),
            open: open.load(Ordering::Relaxed),
            sent: sent.load(Ordering::Relaxed),
            received: received.load(Ordering::Relaxed),
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    upstream: SocketAddr,
    faults: watch::Receiver<Fault>,
    counters: Arc<Counters>,
) {
    // Only fails outside a runtime.
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        // Out of file descriptors, or a client that gave up: the next one may do better.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        let (faults, counters) = (faults.clone(), Arc::clone(&counters));
        tokio::spawn(async move {
            // A connection that breaks is what the proxy is for.
            drop(connect(client, upstream, faults, &counters).await);
            counters.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connect(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Fault>,
    counters: &Counters,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    // A hanging server accepts and says nothing, so the real one is not even asked.
    released(&mut faults).await?;
    if *faults.borrow() == Fault::Refuse {
        return client.set_zero_linger();
    }
    let mut server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    let outcome = pass(&mut client, &mut server, faults, counters).await;
    if outcome.is_err() {
        client.set_zero_linger()?;
    }
    outcome
}

async fn pass(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut faults: watch::Receiver<Fault>,
    counters: &Counters,
) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let there = pump(
        client_read,
        server_write,
        faults.clone(),
        &counters.sent,
        Direction::ToServer,
    );
    let back = pump(
        server_read,
        client_write,
        faults.clone(),
        &counters.received,
        Direction::ToClient,
    );
    let refused = faults.wait_for(|fault| *fault == Fault::Refuse);
    tokio::select! {
        outcome = async { tokio::try_join!(there, back) } => outcome.map(drop),
        _ = refused => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Copies one direction until its end. A cut or a reset is an error, an orderly end closes the other side.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Fault>,
    counter: &AtomicU64,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed: u64 = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        let mut piece = buffer.get(..count).unwrap_or_default();
        released(&mut faults).await?;
        let fault = *faults.borrow();
        if let Fault::Latency(delay) = fault {
            tokio::time::sleep(delay).await;
        }
        if let Fault::CutAfterBytes(limit) = fault
            && direction == Direction::ToClient
        {
            let left = usize::try_from(limit.saturating_sub(passed)).unwrap_or(usize::MAX);
            piece = piece.get(..left).unwrap_or(piece);
        }
        to.write_all(piece).await?;
        let written = u64::try_from(piece.len()).unwrap_or_default();
        passed += written;
        counter.fetch_add(written, Ordering::Relaxed);
        if piece.len() < count {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if count == 0 {
            return to.shutdown().await;
        }
    }
}

/// Returns when nothing hangs.
async fn released(faults: &mut watch::Receiver<Fault>) -> io::Result<()> {
    faults
        .wait_for(|fault| *fault != Fault::Hang)
        .await
        .map(drop)
        .map_err(|_| io::ErrorKind::ConnectionReset.into())
}
