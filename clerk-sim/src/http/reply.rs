//! Answers, and the ways in which they fail to arrive.

use std::convert::Infallible;
use std::fmt;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use hyper::{Response, StatusCode};

/// Bytes from which answers are compressed. Compressing makes smaller ones longer.
const MIN_COMPRESSED: usize = 512;

/// An answer before it is sent.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Whether the body is HTML instead of JSON.
    pub(crate) html: bool,
    pub(crate) body: Vec<u8>,
    /// The `Retry-After` header, in seconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) gzipped: bool,
}

/// How the body of an answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All of it arrives.
    Whole,
    /// Half of it arrives, then the connection is closed.
    Half,
    /// A few bytes arrive, then the connection is closed.
    Start,
    /// None of it arrives, and the connection stays open.
    Never,
}

impl Reply {
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            body,
            ..Self::default()
        }
    }

    pub(crate) fn value(value: &impl serde::Serialize) -> Self {
        Self::json(serde_json::to_vec(value).expect("an answer can always be written to memory"))
    }

    /// Compresses the body at the fastest level, as a busy server does.
    pub(crate) fn gzip(mut self) -> Self {
        if self.body.len() >= MIN_COMPRESSED {
            let mut encoder = GzEncoder::new(Vec::with_capacity(self.body.len() / 4), Compression::fast());
            encoder.write_all(&self.body).expect("memory takes every byte");
            self.body = encoder.finish().expect("memory takes every byte");
            self.gzipped = true;
        }
        self
    }

    pub(crate) fn into_response(self, ending: Ending) -> Response<ReplyBody> {
        let length = self.body.len();
        let mut data = Bytes::from(self.body);
        match ending {
            Ending::Whole => {}
            Ending::Half => data.truncate(length / 2),
            Ending::Start => data.truncate(length.min(16).saturating_sub(1)),
            Ending::Never => data.clear(),
        }
        let mut response = Response::new(ReplyBody {
            data: Some(data).filter(|data| !data.is_empty()),
            ending,
        });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let kind = if self.html {
            "text/html; charset=utf-8"
        } else {
            "application/json"
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if self.gzipped {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The body of an answer, as it is sent.
pub(crate) struct ReplyBody {
    data: Option<Bytes>,
    ending: Ending,
}

/// The error by which a connection is closed on purpose.
#[derive(Debug)]
pub(crate) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped by a fault")
    }
}

impl std::error::Error for Dropped {}

impl From<Infallible> for Dropped {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.ending {
            Ending::Whole => Poll::Ready(None),
            Ending::Half | Ending::Start => Poll::Ready(Some(Err(Dropped))),
            // Only the end of the connection wakes this again.
            Ending::Never => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.ending == Ending::Whole
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.data, self.ending) {
            (data, Ending::Whole) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}
