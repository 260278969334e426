//! What the headers of an answer say about time.

use std::time::Duration;

use chrono::DateTime;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Returns the server's clock, in Unix milliseconds.
pub(crate) fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(DATE)?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis())
}

/// Returns how long to wait before the next request: `Retry-After` in seconds, or as a date, which
/// is compared with the server's own clock. `None` if the answer has none, or one that cannot be
/// read.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis();
    let now = date(headers).unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
    let milliseconds = u64::try_from(then.saturating_sub(now)).unwrap_or_default();
    Some(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |pairs: &[(&'static str, &str)], expected: Option<u64>| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            assert_eq!(
                retry_after(&headers.collect()),
                expected.map(Duration::from_secs),
                "{pairs:?}"
            );
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(&[], None);
        check(&[("retry-after", "7")], Some(7));
        check(&[("retry-after", " 0 ")], Some(0));
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "-3")], None);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], Some(30));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date], Some(0));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], Some(0));
        // Without the server's clock, this machine's is used, by which that is long ago.
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(0));
    }
}
