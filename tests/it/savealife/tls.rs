//! Mail over TLS, as a provider takes it: from the first byte, or after STARTTLS; and never
//! to a server that an authority does not vouch for.

use super::world::World;
use crate::support::smtp::{Encryption, MailServer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// An authority's certificate, and a server of the name localhost that it vouches for.
fn server() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_over_tls_with_a_password_and_to_no_stranger() {
    let (authority, acceptor) = server();
    let file = std::env::temp_dir().join(format!("savealife-authority-{}", std::process::id()));
    std::fs::write(&file, authority).unwrap();
    let world = World::new("savealife-tls").await;
    let (api, consumer) = (world.api().await, world.consumer().await);
    world.sign_up("ada", "Haarlem").await;
    for (encryption, scheme, query) in [
        (Encryption::Always(acceptor.clone()), "smtps", ""),
        (Encryption::Upgrade(acceptor), "smtp", "?tls=required"),
    ] {
        let mail = MailServer::start_with(encryption).await;
        let port = mail.address.port();
        let url = format!("{scheme}://ada%40example.org:pass%20word@localhost:{port}{query}");
        let url = ("SMTP_URL", url.as_str());
        // Nobody here vouches for it yet.
        let stranger = world.handler(&[url]).await;
        let id = world.donate("Haarlem").await;
        mail.until("a connection", |mail| mail.connections() > 0).await;
        let said = |lines: &[String]| {
            lines.iter().any(|line| line.contains("the mail server cannot be used")).then_some(())
        };
        stranger.stderr.find("what is wrong", said).await;
        assert_eq!(world.states(&id).await, BTreeMap::new());
        stranger.stop().await;

        let trusting = [url, ("SSL_CERT_FILE", file.to_str().unwrap())];
        let handler = world.handler(&trusting).await;
        let states = world.until_settled(&id, 1).await;
        assert!(states.values().all(|state| state == "sent"), "{states:?}");
        assert_eq!(mail.mails().len(), 1);
        let shown = BASE64_STANDARD.encode("\0ada@example.org\0pass word");
        assert_eq!(mail.credentials(), [shown]);
        let ended = handler.stop().await;
        assert!(!ended.stderr.join("\n").contains("pass"), "no password in the log");
    }
    for process in [consumer, api] {
        process.stop().await;
    }
    std::fs::remove_file(file).unwrap();
}
