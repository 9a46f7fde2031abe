//! TLS over a connection, for https.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::stream::TimedStream;

/// Begins TLS with the server named `host`, whose certificate must be signed by a trusted authority.
///
/// # Errors
///
/// When no authority is trusted, or `host` can have no certificate. The handshake comes with the first use.
pub fn wrap(
    host: &str,
    stream: TimedStream,
) -> io::Result<StreamOwned<ClientConnection, TimedStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities()?)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// The system's, or what SSL_CERT_FILE and SSL_CERT_DIR name in their place; in an image that has none,
/// those of Mozilla that are built in.
fn authorities() -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(system.certs);
    let named =
        ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().find(|name| std::env::var_os(name).is_some());
    match (store.is_empty(), named) {
        // Whoever names an authority trusts no other.
        (true, Some(name)) => return Err(io::Error::other(format!("{name} holds no certificate"))),
        (true, None) => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        (false, _) => {}
    }
    Ok(store)
}
