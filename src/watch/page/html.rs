//! The parts of HTML that several sections use.

use std::fmt::{self, Display, Write};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{humanize::age, printable::printable};

/// What is shown in place of a value that there is not.
pub(super) const NONE: &str = "–";

/// Text that is escaped when it is written, on one line and in one direction.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printable(self.0).chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            letter => f.write_char(letter),
        })
    }
}

/// A table with its section.
pub(super) struct Table<'a> {
    /// The heading of the section. It is unique on the page.
    pub(super) title: &'a str,
    /// What each row says, for screen readers.
    pub(super) caption: &'a str,
    /// The number of columns with text, which come first. Those with numbers follow.
    pub(super) text_columns: u8,
    /// The heads of the columns, as HTML.
    pub(super) heads: &'a [&'a str],
}

impl Table<'_> {
    /// Writes the section, up to the first row.
    pub(super) fn begin(&self, out: &mut String) -> fmt::Result {
        let Self {
            title,
            caption,
            text_columns,
            heads,
        } = self;
        // A table can be wider than a phone, and a keyboard must be able to scroll it.
        write!(
            out,
            "<section><h2>{title}</h2><div class=\"wide\" role=\"region\" aria-label=\"{title}\" tabindex=\"0\">\
             <table class=\"text-{text_columns}\"><caption>{caption}</caption><thead><tr>"
        )?;
        heads
            .iter()
            .try_for_each(|head| write!(out, "<th scope=\"col\">{head}"))?;
        out.push_str("</tr></thead><tbody>");
        Ok(())
    }

    /// Writes a row that explains the one before.
    pub(super) fn explain(&self, out: &mut String, why: &str) -> fmt::Result {
        let columns = self.heads.len();
        write!(out, "<tr><td class=\"why\" colspan=\"{columns}\">{}</tr>", Escaped(why))
    }

    /// Writes the end of the section.
    pub(super) fn end(&self, out: &mut String) {
        out.push_str("</tbody></table></div></section>");
    }
}

/// Returns how long ago a time was, by the database's clock.
pub(super) fn ago(now: DateTime<Utc>, at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| NONE.to_owned(), |at| ago_of(now - at))
}

/// Returns a duration that has passed.
pub(super) fn ago_of(passed: TimeDelta) -> String {
    format!("{} ago", age(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = Escaped("<script>alert(\"&\")</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;");
    }
}
