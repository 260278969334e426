//! An HTTP server that answers with exactly the bytes that a test chooses.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A server that closes the connection after each response.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<usize>>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts a server. `answer` turns the head of a request into the bytes of the response.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(answer, false).await
    }

    /// Starts a server that sends spaces after each response for as long as the client reads.
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
                    // Clients that stop reading close the connection.
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

    /// Returns the heads of all requests so far: request lines and headers.
    pub fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns how many bytes of endless responses clients have read.
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

/// Returns the bytes of a response, with its length.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
