//! A platform that hands out tokens: a real HTTP server in the test process, and what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Serves until it is dropped.
pub struct Platform {
    /// Where.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

/// Answers one request; `number` counts them from 0.
pub trait Answer: Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static {}
impl<T: Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static> Answer for T {}

impl Platform {
    /// One that answers with `answer`, which is given the request's head.
    pub fn new(answer: impl Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let platform = Self { address, asked: Arc::default(), over: Arc::default() };
        let (asked, over, answer) =
            (platform.asked.clone(), platform.over.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    let head = read_head(&mut stream);
                    let number = {
                        let mut asked = asked.lock().unwrap();
                        asked.push(head.clone());
                        asked.len() - 1
                    };
                    answer(number, &head, &mut stream);
                });
            }
        });
        platform
    }

    /// One that answers each request with the same bytes.
    pub fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_, _, stream| drop(stream.write_all(&answer)))
    }

    /// Value of PLATFORM_URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
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
