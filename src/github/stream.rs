//! A connection to a server by its name, with an end in time.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::process;

/// A connection that fails when its time is over, however slowly bytes come.
pub struct TimedStream {
    stream: TcpStream,
    deadline: Instant,
}

impl TimedStream {
    /// Connects to `host`, a name or an address, until `deadline`.
    ///
    /// # Errors
    ///
    /// When the name is not known, or no address of it takes the connection.
    pub fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<Self> {
        Ok(Self { stream: connect(host, port, deadline)?, deadline })
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // Zero would mean for ever.
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = resolve(host, port, deadline)?;
    let mut failure = io::Error::other("its name has no address");
    for (index, address) in addresses.iter().enumerate() {
        // One that does not answer leaves time for the others.
        let share = left(deadline)? / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The addresses of `host` by /etc/hosts and DNS. The C library's look-up knows no limit of time, so it is
/// left to a thread that may stay behind.
fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    process::look_names_up_by_files_and_dns();
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    std::thread::Builder::new().name("name".into()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        // Nobody waits any more if this took too long.
        let _ = sender.send(found.map(|addresses| addresses.take(8).collect()));
    })?;
    let found: io::Result<Vec<SocketAddr>> = receiver
        .recv_timeout(left(deadline)?)
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    found.map_err(|error| match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::other("its name is not known to /etc/hosts or DNS"),
    })
}
