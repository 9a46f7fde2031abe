//! A server by https in the test process, with a certificate of an authority of its own.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::server::Server;

/// What a handler speaks over.
pub trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// Serves until it is dropped.
pub struct TlsServer {
    server: Server,
    /// The certificate of the authority, PEM.
    pub authority: PathBuf,
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
        let server = Server::new(address, move |stream| {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            handle(&mut stream);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        let authority = directory.path().join("ca.pem");
        Self { server, authority, _directory: directory }
    }

    /// Where.
    pub fn address(&self) -> SocketAddr {
        self.server.address
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
