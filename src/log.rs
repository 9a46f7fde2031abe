//! The `tracing` subscriber: one line per event, with the prefix of the section it belongs to.
//!
//! Text: `PREFIX: message`, with `WARN` or `ERROR` after the prefix for those levels, which is the
//! form the boot log has always had. JSON: one object per line with `time` (UTC, RFC 3339),
//! `level`, `section`, `message` and the event's other fields. Lines outside a section (the audit,
//! complaints) have the same JSON form.
#![forbid(unsafe_code)]

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, span};

use crate::error::{escape, is_interpreted};

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `PREFIX: message`
    Text,
    /// One JSON object per line.
    Json,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[derive(Debug)]
struct Section {
    prefix: &'static str,
    stream: LogStream,
}

static SECTION: Mutex<Section> =
    Mutex::new(Section { prefix: "molecule-tools", stream: LogStream::Stderr });
static JSON: AtomicBool = AtomicBool::new(false);

/// Installs the subscriber. A second call only changes the form.
pub fn init(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    // Fails only when a subscriber is installed already, which is then this one.
    let _ = tracing::subscriber::set_global_default(Lines);
}

/// Sets prefix and stream of all lines from here on, in every thread.
pub fn section(prefix: &'static str, stream: LogStream) {
    if let Ok(mut section) = SECTION.lock() {
        *section = Section { prefix, stream };
    }
}

/// `value` as JSON text (RFC 8259), on one line or indented. Strings keep their true characters, but
/// those that a terminal would act on ([`is_interpreted`]) stand as `\uXXXX`: a user who names a file may
/// be hostile, and reports are read with cat.
pub fn json_text(value: &Value, pretty: bool) -> String {
    let text = if pretty { format!("{value:#}") } else { value.to_string() };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // The only one outside strings is the line feed of the indented form; in strings it has been
        // escaped already.
        if is_interpreted(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Writes one already complete line to `stream` in one call; a closed stream is no error.
pub fn write_line(stream: LogStream, line: &str) {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    // A reader that went away must not stop a boot.
    let _ = match stream {
        LogStream::Stdout => std::io::stdout().lock().write_all(&bytes),
        LogStream::Stderr => std::io::stderr().lock().write_all(&bytes),
    };
}

/// Writes text of one or more lines, such as a usage error that repeats an argument: what a terminal
/// interprets within a line is escaped.
pub fn write_lines(stream: LogStream, text: &str) {
    let lines: Vec<String> = text.lines().map(|line| OneLine(line).to_string()).collect();
    write_line(stream, &lines.join("\n"));
}

/// The form that [`init`] was called with; text before that.
pub fn format() -> LogFormat {
    if JSON.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text }
}

/// Writes a line of program `section` on standard error, outside the sections of a boot: in text
/// `SECTION: message`, and only a warning has its level before the message.
pub fn complain(section: &str, level: Level, message: &str) {
    let mark = if level == Level::WARN { "WARN " } else { "" };
    complain_as(&format!("{section}: {mark}{message}"), section, level, message);
}

/// The same with the whole of the `text` form given.
pub fn complain_as(text: &str, section: &str, level: Level, message: &str) {
    let line = match format() {
        LogFormat::Text => OneLine(text).to_string(),
        LogFormat::Json => json_line(section, level, message, Map::new()),
    };
    write_line(LogStream::Stderr, &line);
}

/// One line of the JSON form: `time`, `level`, `section`, `message`, then `others`.
pub fn json_line(section: &str, level: Level, message: &str, others: Map<String, Value>) -> String {
    let mut object = Map::new();
    object.insert("time".into(), timestamp().into());
    object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    object.insert("section".into(), section.into());
    object.insert("message".into(), message.into());
    object.extend(others);
    json_text(&Value::Object(object), false)
}

/// The current time as `YYYY-MM-DDThh:mm:ssZ` (RFC 3339, UTC).
pub fn timestamp() -> String {
    rfc3339(rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec)
}

/// The time `seconds` after 1970 as `YYYY-MM-DDThh:mm:ssZ` (RFC 3339, UTC).
pub fn rfc3339(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month (1..=12) and day (1..=31) of the day `days` after 1970-01-01, proleptic Gregorian.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Counted from 1 March of year 0, so that the leap day is the last of its year.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * march_month + 2) / 5 + 1) as u32;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 } as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

struct Lines;

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Ok(section) = SECTION.lock() else { return };
        let level = *event.metadata().level();
        let line = match format() {
            LogFormat::Json => fields.json(section.prefix, level),
            LogFormat::Text => fields.text(section.prefix, level),
        };
        write_line(section.stream, &line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn text(&self, prefix: &str, level: Level) -> String {
        let mark = match level {
            Level::ERROR => "ERROR ",
            Level::WARN => "WARN ",
            _ => "",
        };
        format!("{prefix}: {mark}{}", OneLine(&self.message))
    }

    fn json(self, prefix: &str, level: Level) -> String {
        json_line(prefix, level, &self.message, self.others)
    }
}

/// The last guard of "one event, one line": a message is escaped by the code that puts foreign text into
/// it, so only what a terminal interprets is treated here and backslashes stay.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match is_interpreted(c) {
                true => write!(f, "{}", escape(c.encode_utf8(&mut [0; 4])))?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                self.others.insert(name.into(), format!("{value:?}").into());
            }
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.into(),
            name => {
                self.others.insert(name.into(), value.into());
            }
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().into(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().into(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_at_the_edges() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
            (-719_468, (0, 3, 1)),
        ] {
            assert_eq!(civil_from_days(days), date, "day {days}");
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_carries() {
        let fields = Fields { message: "a\nb\\n".into(), others: Map::new() };
        assert_eq!(fields.text("P", Level::WARN), "P: WARN a\\nb\\n");
        let json = fields.json("P", Level::INFO);
        assert!(json.ends_with(r#""level":"info","section":"P","message":"a\nb\\n"}"#), "{json}");
    }
}
