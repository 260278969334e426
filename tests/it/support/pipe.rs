//! Programs that read all of their input and then answer.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

/// Runs a program with this input, and returns what it writes to stdout. It must succeed.
pub async fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that fails may not read it.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let ran = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command:?}: {} {stderr}", ran.status);
    ran.stdout
}
