//! A server in the test process: a thread for each connection, until it is dropped.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Serves until it is dropped.
pub struct Server {
    /// Where.
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    /// One at `address`; each connection is given to `handle`.
    pub fn new(address: &str, handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = Self { address, over: Arc::default() };
        let (over, handle) = (server.over.clone(), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let handle = handle.clone();
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    handle(stream);
                });
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
    }
}

/// An address of the loopback network that no other process of these tests uses; `host` tells those of one apart.
pub fn own_address(host: u8) -> std::net::Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    std::net::Ipv4Addr::new(127, host, high, low)
}

/// The head of a request by HTTP; what follows it stays to be read.
pub fn read_head(stream: &mut (impl Read + ?Sized)) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}
