//! A proxy before Postgres that counts the statements that a program sends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    task::JoinHandle,
};

use crate::support::proxy::upstream;

/// Counts the statements on all connections through it.
pub struct StatementCounter {
    /// The database's URL, through this proxy.
    pub url: String,
    executed: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl StatementCounter {
    pub async fn before(url: &str) -> Self {
        let server = upstream(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let executed = Arc::<AtomicU64>::default();
        let counter = executed.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                // Either end closes when the other does.
                tokio::spawn(carry(client, server, counter.clone()));
            }
        });
        Self {
            url: url.replacen(&server.to_string(), &address.to_string(), 1),
            executed,
            accepting,
        }
    }

    /// Returns the number of statements so far.
    pub fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }
}

impl Drop for StatementCounter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, executed: Arc<AtomicU64>) -> io::Result<()> {
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let startup = message(&mut from_client, None).await?;
        to_server.write_all(&startup).await?;
        loop {
            let kind = from_client.read_u8().await?;
            let message = message(&mut from_client, Some(kind)).await?;
            // Query and Execute. The messages before an Execute only prepare it.
            if matches!(kind, b'E' | b'Q') {
                executed.fetch_add(1, Ordering::Relaxed);
            }
            to_server.write_all(&message).await?;
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        result = there => result,
        result = back => result.map(drop),
    }
}

/// Returns the bytes of a message whose type was read. The first message of a connection has no
/// type.
async fn message(from: &mut OwnedReadHalf, kind: Option<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend(length.to_be_bytes());
    let start = bytes.len();
    bytes.resize(start + length as usize - 4, 0);
    from.read_exact(&mut bytes[start..]).await?;
    Ok(bytes)
}
