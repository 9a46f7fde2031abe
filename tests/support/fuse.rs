//! A FUSE mount (fuse(4)) whose server never answers, as an agent can leave one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::sandbox::Sandbox;

/// What the server does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It never reads: whoever waits can be killed.
    Absent,
    /// It introduces itself, takes every request and answers none: not even SIGKILL ends a wait.
    Silent,
}

/// The mount; when it is dropped, every request fails with ENOTCONN.
pub struct FuseMount {
    stop: Arc<AtomicBool>,
    server: Option<std::thread::JoinHandle<()>>,
    _connection: Option<File>,
}

impl FuseMount {
    /// Mounts it on directory `inside` of the sandbox.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, inside: &str, server: Server) -> Self {
        const NUMBER: i32 = 9;
        let connection = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={NUMBER},rootmode=40000,user_id=1000,group_id=1000,allow_other");
        let outcome = sandbox
            .command("/bin/mount")
            .args(["-i", "-n", "-t", "fuse", "-o", &options, "silent", inside])
            .descriptor(NUMBER, connection.try_clone().unwrap())
            .run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        let stop = Arc::new(AtomicBool::new(false));
        let (server, held) = match server {
            Server::Absent => (None, Some(connection)),
            Server::Silent => {
                let stop = Arc::clone(&stop);
                (Some(std::thread::spawn(move || serve(connection, &stop))), None)
            }
        };
        Self { stop, server, _connection: held }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

/// Answers FUSE_INIT (26) and nothing else; the connection ends with the descriptor.
fn serve(mut connection: File, stop: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while !stop.load(Ordering::Relaxed) {
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let ready = poll(&mut [PollFd::new(&connection.as_fd(), PollFlags::IN)], Some(&soon));
        if ready != Ok(1) {
            continue;
        }
        let Ok(length) = connection.read(&mut request) else { continue };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        if length >= 56 && word(4) == 26 {
            // struct fuse_out_header: length, error, the request's id; struct fuse_init_out: major,
            // minor, max_readahead, flags, max_background and congestion_threshold, max_write, ...
            let mut answer = [0_u8; 16 + 64];
            answer[0..4].copy_from_slice(&80_u32.to_ne_bytes());
            answer[8..16].copy_from_slice(&request[8..16]);
            for (at, number) in [(16, 7_u32), (20, 31), (36, 4096)] {
                answer[at..at + 4].copy_from_slice(&number.to_ne_bytes());
            }
            connection.write_all(&answer).unwrap();
        }
    }
}
