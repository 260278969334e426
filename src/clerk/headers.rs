//! Headers of answers.

use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, HeaderMap};

pub(super) fn is_gzip(headers: &HeaderMap) -> bool {
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// Returns the server's clock, in Unix milliseconds.
pub(super) fn date(headers: &HeaderMap) -> Option<i64> {
    let text = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    Some(chrono::DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis())
}

/// Returns how long to wait before the next request: `Retry-After` in seconds, or as a date, which
/// is compared with the server's own clock. Zero if the answer has none.
pub(super) fn retry_after(headers: &HeaderMap) -> Duration {
    let text = headers
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let Some(text) = text.map(str::trim) else {
        return Duration::ZERO;
    };
    if let Ok(seconds) = text.parse() {
        return Duration::from_secs(seconds);
    }
    let now = date(headers).unwrap_or_else(|| chrono::Utc::now().timestamp_millis());
    let then = chrono::DateTime::parse_from_rfc2822(text).map(|at| at.timestamp_millis());
    then.map_or(Duration::ZERO, |then| {
        Duration::from_millis(u64::try_from(then.saturating_sub(now)).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let check = |pairs: &[(&'static str, &str)], expected| {
            let headers = pairs.iter().map(|(name, value)| {
                let name = reqwest::header::HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            });
            assert_eq!(
                retry_after(&headers.collect()),
                Duration::from_secs(expected),
                "{pairs:?}"
            );
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(&[], 0);
        check(&[("retry-after", "7")], 7);
        check(&[("retry-after", " 0 ")], 0);
        check(&[("retry-after", "soon")], 0);
        check(&[("retry-after", "-3")], 0);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], 30);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date], 0);
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], 0);
        // Without the server's clock, this machine's is used, by which that is long ago.
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], 0);
    }
}
