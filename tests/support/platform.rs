//! A platform that hands out tokens: a real HTTP server in the test process, and what it was asked.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::server::{Server, read_head};

/// Serves until it is dropped.
pub struct Platform {
    server: Server,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Answers one request; `number` counts them from 0.
pub trait Answer: Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static {}
impl<T: Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static> Answer for T {}

impl Platform {
    /// One that answers with `answer`, which is given the request's head.
    pub fn new(answer: impl Answer) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heads = asked.clone();
        let server = Server::new("127.0.0.1:0", move |mut stream| {
            let head = read_head(&mut stream);
            let number = {
                let mut heads = heads.lock().unwrap();
                heads.push(head.clone());
                heads.len() - 1
            };
            answer(number, &head, &mut stream);
        });
        Self { server, asked }
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// One that answers each request with the same bytes.
    pub fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, _, stream| drop(stream.write_all(&answer)))
    }

    /// Value of PLATFORM_URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The heads of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An answer of `status` with this body and these header lines.
pub fn reply(status: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let headers = headers.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The answer that hands out `token` for `seconds` more, by the clock of this machine.
pub fn grant(token: &str, seconds: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let ends = molecule_tools::log::rfc3339(now + seconds);
    reply(200, &[], &format!("{{\n  \"token\": \"{token}\",\n  \"expires_at\": \"{ends}\"\n}}\n"))
}
