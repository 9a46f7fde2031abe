//! One GET request by HTTP/1.1 (RFC 9112), with a bound on everything: the whole of it takes no longer than
//! a limit, names included, and no more memory than an answer may have. No redirect is followed, and no
//! proxy of the environment ever sees the request, which carries a secret.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::clock;
use super::secret::WipedBytes;
use super::stream::TimedStream;
#[cfg(feature = "tls")]
use super::tls;
use super::url::ServerUrl;
use crate::error::{Error, Result, describe, os_errno};

/// Most bytes of an answer's head, and of its body.
const HEAD: usize = 32 << 10;
const BODY: usize = 64 << 10;
/// Most bytes of an answer on its way; small chunks take more room than what is in them.
const RAW: usize = HEAD + 2 * BODY;
/// Most header lines.
const LINES: usize = 100;

/// One header line of a request.
pub type HeaderLine<'a> = (&'a str, &'a [u8]);

/// The answer to a request.
pub struct HttpAnswer {
    /// 200 and so on.
    pub status: u16,
    /// The server's clock, in seconds since 1970.
    pub date: Option<i64>,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The content.
    pub body: WipedBytes,
}

/// Requests `path`, which begins with a slash, below `url`. Header lines must not hold line feeds.
///
/// # Errors
///
/// When there is no complete answer within `limit`, or a larger one than any that is asked for.
pub fn get(
    url: &ServerUrl,
    path: &str,
    headers: &[HeaderLine<'_>],
    limit: Duration,
) -> Result<HttpAnswer> {
    let deadline = Instant::now() + limit;
    let fail = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no complete answer within {} s", limit.as_secs())
            }
            _ => match error.raw_os_error() {
                Some(_) => describe(os_errno(&error)),
                None => error.to_string(),
            },
        };
        Error::on("request", format!("{}{path}", url.text), reason)
            .hint("see whether PLATFORM_URL is right and the platform runs")
    };
    let mut stream = TimedStream::connect(&url.host, url.port, deadline).map_err(fail)?;
    let request = request(url, path, headers);
    let answer = match url.secure {
        #[cfg(feature = "tls")]
        true => tls::wrap(&url.host, stream).and_then(|mut stream| converse(&mut stream, &request)),
        #[cfg(not(feature = "tls"))]
        true => Err(io::Error::other("this program was built without https")),
        false => converse(&mut stream, &request),
    };
    answer.map_err(fail)
}

fn request(url: &ServerUrl, path: &str, headers: &[HeaderLine<'_>]) -> WipedBytes {
    let start = format!(
        "GET {}{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        url.prefix,
        url.host_header()
    );
    let lines = headers.iter().map(|(name, value)| name.len() + value.len() + 4);
    let mut bytes = Zeroizing::new(Vec::with_capacity(start.len() + lines.sum::<usize>() + 2));
    bytes.extend_from_slice(start.as_bytes());
    for (name, value) in headers {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn converse(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<HttpAnswer> {
    stream.write_all(request)?;
    stream.flush()?;
    read_answer(stream)
}

/// Where the content of an answer ends (RFC 9112, 6.3).
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunks,
    End,
}

fn read_answer(stream: &mut impl Read) -> io::Result<HttpAnswer> {
    let mut raw = Zeroizing::new(Vec::with_capacity(RAW));
    loop {
        let (mut answer, framing, start) = read_head(stream, &mut raw)?;
        match answer.status {
            // Interim ones precede the answer.
            100..200 => drop(raw.drain(..start)),
            204 | 304 => return Ok(answer),
            _ => {
                answer.body = read_body(stream, &mut raw, start, framing)?;
                return Ok(answer);
            }
        }
    }
}

/// Reads until a head is complete; returns where it ends.
fn read_head(
    stream: &mut impl Read,
    raw: &mut Vec<u8>,
) -> io::Result<(HttpAnswer, Framing, usize)> {
    loop {
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut head = httparse::Response::new(&mut lines);
        match head.parse(raw) {
            Ok(httparse::Status::Complete(end)) => {
                let (answer, framing) = read_lines(&head)?;
                return Ok((answer, framing, end));
            }
            Ok(httparse::Status::Partial) if raw.len() < HEAD => {}
            Ok(httparse::Status::Partial) => return Err(io::Error::other("its head is too long")),
            Err(_) => return Err(io::Error::other("what answers does not speak HTTP/1.1")),
        }
        if !read_more(stream, raw, HEAD)? {
            return Err(io::Error::other("the answer ended in its head"));
        }
    }
}

fn read_lines(head: &httparse::Response<'_, '_>) -> io::Result<(HttpAnswer, Framing)> {
    let values = |name: &'static str| {
        let lines = head.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| std::str::from_utf8(line.value).unwrap_or_default().trim())
    };
    let date = values("date").next().and_then(clock::from_http_date);
    let retry_after = values("retry-after").next().and_then(|value| {
        let until = || Some(clock::from_http_date(value)? - date.unwrap_or_else(clock::wall));
        let seconds = value.parse().ok().or_else(|| u64::try_from(until()?).ok());
        seconds.map(Duration::from_secs)
    });
    let framing = match (values("transfer-encoding").next_back(), values("content-length").next()) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunks,
        (Some(_), _) => return Err(io::Error::other("its transfer coding is not known")),
        (None, Some(length)) if values("content-length").all(|other| other == length) => {
            let length = length.parse().ok().filter(|&length| length <= BODY);
            Framing::Length(length.ok_or_else(too_large)?)
        }
        (None, Some(_)) => return Err(io::Error::other("it has two lengths")),
        (None, None) => Framing::End,
    };
    let status = head.code.unwrap_or_default();
    Ok((HttpAnswer { status, date, retry_after, body: WipedBytes::default() }, framing))
}

fn read_body(
    stream: &mut impl Read,
    raw: &mut Vec<u8>,
    start: usize,
    framing: Framing,
) -> io::Result<WipedBytes> {
    loop {
        let bytes = &raw[start..];
        let ended = match framing {
            Framing::Length(length) if bytes.len() >= length => {
                return Ok(Zeroizing::new(bytes[..length].to_vec()));
            }
            Framing::Chunks => match join_chunks(bytes)? {
                Some(body) => return Ok(body),
                None => !read_more(stream, raw, RAW)?,
            },
            Framing::End if bytes.len() > BODY => return Err(too_large()),
            _ => !read_more(stream, raw, RAW)?,
        };
        match framing {
            Framing::End if ended => return Ok(Zeroizing::new(raw[start..].to_vec())),
            _ if ended => return Err(io::Error::other("the answer ended too early")),
            _ => {}
        }
    }
}

/// The content of `bytes` if they hold the last chunk, which is empty. What follows it is not looked at.
fn join_chunks(mut bytes: &[u8]) -> io::Result<Option<WipedBytes>> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY));
    loop {
        let (start, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(io::Error::other("its chunks are malformed")),
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).ok().filter(|&size| size <= BODY - body.len());
        let size = size.ok_or_else(too_large)?;
        match bytes.get(start..start + size + 2) {
            Some(chunk) if chunk.ends_with(b"\r\n") => body.extend_from_slice(&chunk[..size]),
            Some(_) => return Err(io::Error::other("its chunks are malformed")),
            None => return Ok(None),
        }
        bytes = &bytes[start + size + 2..];
    }
}

/// Reads once; whether the stream has not ended.
fn read_more(stream: &mut impl Read, raw: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    let length = raw.len();
    if length >= most {
        return Err(too_large());
    }
    // Within its capacity: a buffer that moved would leave a copy.
    raw.resize(most, 0);
    let read = loop {
        match stream.read(&mut raw[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    raw.truncate(length + *read.as_ref().unwrap_or(&0));
    Ok(read? > 0)
}

fn too_large() -> io::Error {
    io::Error::other(format!("the answer is larger than {} KiB", BODY >> 10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> io::Result<HttpAnswer> {
        read_answer(&mut &*text)
    }

    fn body(text: &str) -> String {
        let answer = read(text.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[test]
    fn each_framing_has_its_end() {
        let head = "HTTP/1.1 200 OK\r\nX: y\r\n";
        assert_eq!(body(&format!("{head}Content-Length: 3\r\n\r\nabcd")), "abc");
        assert_eq!(body(&format!("{head}\r\nabcd")), "abcd");
        let chunks = "2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(body(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")), "abc");
        assert_eq!(body(&format!("HTTP/1.1 103 Early Hints\r\n\r\n{head}\r\nab")), "ab");
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_a_failure() {
        let head = "HTTP/1.1 200 OK\r\n";
        let large = "x".repeat(BODY + 1);
        for odd in [
            String::new(),
            head.into(),
            format!("{head}Content-Length: 3\r\n\r\nab"),
            format!("{head}Content-Length: 70000\r\n\r\n"),
            format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nab"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
            format!("{head}Transfer-Encoding: gzip\r\n\r\nab"),
            format!("{head}\r\n{large}"),
            format!("{head}X: {large}\r\n\r\n"),
            "SSH-2.0-x\r\n".into(),
        ] {
            assert!(read(odd.as_bytes()).is_err(), "{}", odd.chars().take(80).collect::<String>());
        }
    }

    #[test]
    fn the_servers_clock_and_wish_are_read() {
        let date = "Date: Thu, 26 Nov 2026 10:00:00 GMT\r\n";
        for (wish, seconds) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("Thu, 26 Nov 2026 10:01:00 GMT", Some(60)),
            ("Thu, 26 Nov 2026 09:00:00 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            let text = format!("HTTP/1.1 429 X\r\n{date}Retry-After: {wish}\r\n\r\n");
            let answer = read(text.as_bytes()).unwrap();
            assert_eq!((answer.status, answer.date), (429, Some(1_795_687_200)));
            assert_eq!(answer.retry_after, seconds.map(Duration::from_secs), "{wish}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[b"HTTP/1.1 200 OK\r\n\r\n", &*bytes].concat());
            let _ = join_chunks(&bytes);
        }
    }
}
