//! The certificate of the private listener, in files that may be replaced while it runs.
//!
//! Owns reading them and seeing that they changed; accepts no connection. Invariant: a
//! certificate that cannot be used never takes the place of one that can.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How often the files are looked at, if there are connections.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Which file cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or its chain.
    #[error("{0}")]
    Certificate(String),
    /// The key, or it is another certificate's.
    #[error("{0}")]
    Key(String),
}

/// A certificate and its key.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When its two files were last changed.
    of: [Option<SystemTime>; 2],
    /// The same of files that could not be used: they are tried again, and told of once.
    unusable: Option<[Option<SystemTime>; 2]>,
    looked: Instant,
}

impl Tls {
    /// Reads a chain of certificates, the listener's first, and its key, both PEM.
    ///
    /// # Errors
    /// When the two cannot be used together; the sentence does not name the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let of = changed(certificate, key);
        let config = read(certificate, key)?;
        let current = Mutex::new(Current { config, of, unusable: None, looked: Instant::now() });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// For the next connection: of the files as they are now, nearly.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().expect("no panic while held");
        if current.looked.elapsed() >= LOOK_INTERVAL {
            current.looked = Instant::now();
            let of = changed(&self.certificate, &self.key);
            if of != current.of {
                match read(&self.certificate, &self.key) {
                    Ok(config) => {
                        info!("the certificate was replaced");
                        current.config = config;
                        current.of = of;
                        current.unusable = None;
                    }
                    Err(error) if current.unusable != Some(of) => {
                        warn!(%error, "the new certificate cannot be used, going on with the old one");
                        current.unusable = Some(of);
                    }
                    Err(_) => {}
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn changed(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    let at = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    [at(certificate), at(key)]
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |error: rustls::pki_types::pem::Error| format!("cannot be read: {error}");
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| TlsError::Certificate(unreadable(error)))?;
    if chain.is_empty() {
        return Err(TlsError::Certificate("has no certificate in it, as PEM has them".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key(unreadable(error)))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Both ends are ours: nothing older is needed.
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Certificate(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Key(format!("does not go with the certificate: {error}")))?;
    Ok(Arc::new(config))
}
