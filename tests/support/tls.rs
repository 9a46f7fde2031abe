//! A server by https in the test process, with a certificate of an authority of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a handler speaks over.
pub trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// Serves until it is dropped.
pub struct TlsServer {
    /// Where.
    pub address: SocketAddr,
    /// The certificate of the authority, PEM.
    pub authority: PathBuf,
    over: Arc<AtomicBool>,
    _directory: tempfile::TempDir,
}

impl TlsServer {
    /// One at `address` whose certificate names `host`; each connection is given to `handle`.
    pub fn new(
        address: &str,
        host: &str,
        handle: impl Fn(&mut dyn Connection) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = Arc::new(config(directory.path(), host));
        let listener = TcpListener::bind(address).expect("a port");
        let server = Self {
            address: listener.local_addr().expect("its address"),
            authority: directory.path().join("ca.pem"),
            over: Arc::default(),
            _directory: directory,
        };
        let (over, handle) = (server.over.clone(), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (config, handle) = (config.clone(), handle.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    let connection = ServerConnection::new(config).expect("a connection");
                    let mut stream = StreamOwned::new(connection, stream);
                    handle(&mut stream);
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                });
            }
        });
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
    }
}

fn config(directory: &Path, host: &str) -> ServerConfig {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 \
         -subj '/CN=tests' -addext basicConstraints=critical,CA:TRUE
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request -subj '/CN=x'
         printf 'subjectAltName=DNS:{host}\\nbasicConstraints=CA:FALSE\\n' > names
         openssl x509 -req -in request -CA ca.pem -CAkey ca.key -days 2 -extfile names -out cert.pem"
    );
    super::ok(Command::new("sh").args(["-euc", &script]).current_dir(directory));
    let certificate = CertificateDer::from_pem_file(directory.join("cert.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("PEM");
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key")
}
