//! An HTTP server that says exactly what a test wants, byte by byte, for what no simulator of Clerk would say.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that closes the connection behind each answer.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<usize>>,
    serving: JoinHandle<()>,
}

impl Server {
    /// `answer` makes the bytes of an answer out of the request's head; for the part behind them, see [`Self::endless`].
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(answer, false).await
    }

    /// Behind each answer, spaces follow for as long as the client takes them.
    pub async fn endless(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(answer, true).await
    }

    async fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static, endless: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, sent) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (log, count, answer) = (asked.clone(), sent.clone(), Arc::new(answer));
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
                tokio::spawn(async move {
                    let Some(head) = head(&mut stream).await else { return };
                    let bytes = answer(&head);
                    log.lock().unwrap().push(head);
                    // Clients that have had enough close the connection.
                    let mut open = stream.write_all(&bytes).await.is_ok();
                    while endless && open {
                        let spaces = [b' '; 65_536];
                        open = stream.write_all(&spaces).await.is_ok();
                        *count.lock().unwrap() += spaces.len();
                    }
                });
            }
        });
        Self {
            url,
            asked,
            sent,
            serving,
        }
    }

    /// The heads of the requests so far: the request line and the headers.
    pub fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Bytes that clients took of endless answers.
    pub fn sent(&self) -> usize {
        *self.sent.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// An answer with its length.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
