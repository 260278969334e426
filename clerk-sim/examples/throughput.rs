//! Measures how many users per second a running simulator lists.
//!
//! It walks all users by the cursor, on one connection or on several at once.
//!
//! `cargo run --release -p clerk-sim --example throughput -- http://127.0.0.1:8787 8`

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const KEY: &str = "sk_test_clerk_sim";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request over a connection that stays open, and reads the answer.
async fn get(connection: &mut BufReader<TcpStream>, path: &str) -> Result<Vec<u8>, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head.into());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .ok_or("no content-length")?;
    let mut body = vec![0; length.trim().parse()?];
    connection.read_exact(&mut body).await?;
    Ok(body)
}

/// The number of users of a page, and the last id.
///
/// It searches for the text before an id, because parsing JSON would dominate the measurement.
fn last_id(page: &[u8]) -> (usize, Option<String>) {
    let mark = b"{\"id\":\"user_";
    let starts: Vec<_> = page
        .windows(mark.len())
        .enumerate()
        .filter(|(_, part)| part == mark)
        .map(|(at, _)| at)
        .collect();
    let id = starts
        .last()
        .map(|at| String::from_utf8_lossy(&page[at + 7..at + 39]).into_owned());
    (starts.len(), id)
}

async fn walk(address: String, after: i64, before: i64) -> Result<(usize, usize), Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::with_capacity(1 << 16, stream);
    let (mut users, mut bytes, mut cursor) = (0, 0, String::new());
    loop {
        let bounds = format!("created_at_after={after}&created_at_before={before}");
        let path = format!("/v1/users?order_by=created_at&limit=500&{bounds}{cursor}");
        let page = get(&mut connection, &path).await?;
        bytes += page.len();
        let (found, last) = last_id(&page);
        users += found;
        match last {
            Some(last) if found == 500 => cursor = format!("&starting_after={last}"),
            _ => return Ok((users, bytes)),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8787".to_owned());
    let address = url.trim_start_matches("http://").to_owned();
    let connections: i64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    // Users were created in the three years before 2026-06-01, more of them recently. Each connection
    // gets the same number of users, not the same length of time.
    let (end, span) = (1_780_272_000_000_i64, 3.0 * 365.0 * 86_400_000.0);
    let bound = |part: i64| end - (span * (part as f64 / connections as f64).powf(1.4)) as i64;
    let started = Instant::now();
    let walks: Vec<_> = (0..connections)
        .map(|part| {
            let after = if part + 1 == connections { 0 } else { bound(part + 1) };
            let before = if part == 0 { i64::MAX } else { bound(part) + 1 };
            tokio::spawn(walk(address.clone(), after, before))
        })
        .collect();
    let (mut users, mut bytes) = (0, 0);
    for walk in walks {
        let (more_users, more_bytes) = walk.await??;
        users += more_users;
        bytes += more_bytes;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (rate, megabytes) = (users as f64 / seconds, bytes as f64 / 1e6 / seconds);
    println!("{users} users on {connections} connections in {seconds:.2} s: {rate:.0} users/s, {megabytes:.0} MB/s");
    Ok(())
}
