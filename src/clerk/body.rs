//! Bodies of answers.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use libdeflater::{Decompressor, crc32};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::Error;

/// The largest body that is read, in bytes after decompression: a page of 500 documents of 64 kB
/// each.
pub const MAX_BODY: usize = 32 << 20;

/// The body of an answer, with the server's clock from its `Date` header.
#[derive(Debug)]
pub struct ResponseBody {
    /// Unpacked.
    pub bytes: Vec<u8>,
    /// In Unix milliseconds.
    pub date: Option<i64>,
}

pub(super) fn is_gzip(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// Unpacks a whole gzip body. `path` is for the error.
///
/// # Errors
/// It is no gzip, or unpacks to more than [`MAX_BODY`]; no more than that is unpacked.
pub fn unpack(packed: &[u8], path: &str) -> Result<Vec<u8>, Error> {
    // A gzip member ends with the checksum and the length of its content. If there are several
    // members, those are of the last one, and the first one alone does not match them.
    if let Some([a, b, c, d, length @ ..]) = packed.last_chunk::<8>() {
        let (checksum, length) = (
            u32::from_le_bytes([*a, *b, *c, *d]),
            u32::from_le_bytes(*length) as usize,
        );
        if (1..=MAX_BODY).contains(&length) {
            let mut body = vec![0; length];
            let unpacked = Decompressor::new().gzip_decompress(packed, &mut body);
            if unpacked == Ok(length) && crc32(&body) == checksum {
                return Ok(body);
            }
        }
    }
    let mut body = Vec::new();
    let read = MultiGzDecoder::new(packed)
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut body)
        .map_err(|error| Error::Garbage(format!("GET /v1/{path} gave what cannot be unpacked: {error}")))?;
    if read > MAX_BODY {
        return Err(Error::TooLarge { limit: MAX_BODY });
    }
    Ok(body)
}
