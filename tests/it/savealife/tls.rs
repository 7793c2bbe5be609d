//! Mail over TLS, as a provider takes it: from the first byte, or after STARTTLS; never to a server
//! that no authority vouches for, and never in plain text instead. By both handlers.

use super::python;
use super::world::{World, event};
use crate::support::ministack;
use crate::support::process::within;
use crate::support::smtp::{Encryption, MailServer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

/// An authority's certificate, and a server of the name localhost that it vouches for.
fn server() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // OpenSSL goes by the names, and rcgen has one for all.
    params.distinguished_name.push(DnType::CommonName, "an authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
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

/// The answer of the handler in Rust to a donation, and its log.
async fn rust(world: &World, variables: &[(&str, &str)], donation: &str) -> (Value, String) {
    let handler = world.handler(variables).await;
    let answer = world.invoke(&[(donation, "Haarlem")]).await;
    (answer, handler.stop().await.stderr.join("\n"))
}

/// The answer of the handler in Python, and its log.
async fn python(world: &World, variables: &[(&str, &str)], donation: &str) -> (Value, String) {
    let mut child = Command::new(ministack::python())
        .arg(python::program())
        .env_clear()
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(python::settings(world, ""))
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the venv's python runs");
    let line = format!("{}\n", event(&[(donation, "Haarlem")]));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(line.as_bytes()).await.expect("it reads");
    drop(stdin);
    let ended = within("its end", child.wait_with_output()).await.expect("it ends");
    let said = String::from_utf8(ended.stderr).expect("text");
    (serde_json::from_slice(&ended.stdout).expect(&said), said)
}

/// Where the certificate of an authority is, for as long as a test runs.
struct Authority(PathBuf);

impl Authority {
    fn of(pem: &str, test: &str) -> Self {
        let file = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
        std::fs::write(&file, pem).unwrap();
        Self(file)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `handler` gives its answer to a donation and its log, with these variables.
async fn assert_no_stranger_gets_mail(
    test: &str,
    handler: impl AsyncFn(&World, &[(&str, &str)], &str) -> (Value, String),
) {
    let (pem, acceptor) = server();
    let authority = Authority::of(&pem, test);
    let trusting = ("SSL_CERT_FILE", authority.0.to_str().unwrap());
    let patient = ("SMTP_TIMEOUT", "20s");
    let world = World::new(test).await;
    let api = world.api().await;
    world.sign_up("ada", "Haarlem").await;
    let (mut donations, mut id) = (0..9, String::new());
    for (encryption, scheme, query) in [
        (Encryption::Always(acceptor.clone()), "smtps", ""),
        (Encryption::Upgrade(acceptor), "smtp", "?tls=required"),
    ] {
        let url = |host: &str, mail: &MailServer| {
            let port = mail.address.port();
            format!("{scheme}://ada%40example.org:pass%20word@{host}:{port}{query}")
        };
        let mail = MailServer::start_with(encryption).await;
        let plain = MailServer::start().await;
        for (mail, host, variables, why) in [
            (&mail, "localhost", vec![], "certificate"),
            // Vouched for, under another name.
            (&mail, "127.0.0.1", vec![trusting], "valid for"),
            // Or somebody in between says that there is no TLS.
            (&plain, "localhost", vec![trusting], ""),
        ] {
            id = format!("{:012x}", donations.next().unwrap());
            let url = url(host, mail);
            let variables = [variables, vec![patient, ("SMTP_URL", &url)]].concat();
            let (answer, said) = handler(&world, &variables, &id).await;
            let failures = json!([{"itemIdentifier": "0"}]);
            assert_eq!(answer["batchItemFailures"], failures, "{url} {said}");
            assert!(said.contains("the mail server cannot be used"), "{url} {said}");
            assert!(said.contains(why) && !said.contains("pass"), "{url} {said}");
            assert!(mail.connections() > 0 && mail.attempts().is_empty(), "{url} {said}");
            assert_eq!(mail.credentials(), Vec::<String>::new(), "{url}");
            assert_eq!(world.states(&id).await, BTreeMap::new(), "nothing is claimed");
        }
        let url = url("localhost", &mail);
        let variables = [trusting, patient, ("SMTP_URL", &url)];
        let (answer, said) = handler(&world, &variables, &id).await;
        assert_eq!(answer, json!({"batchItemFailures": []}), "{said}");
        assert!(world.states(&id).await.values().eq(["sent"]));
        assert_eq!(mail.mails().len(), 1);
        let shown = BASE64_STANDARD.encode("\0ada@example.org\0pass word");
        assert_eq!(mail.credentials(), [shown]);
        assert!(!said.contains("pass"), "no password in the log");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_over_tls_with_a_password_and_to_no_stranger() {
    assert_no_stranger_gets_mail("savealife-tls", rust).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_the_mail_of_the_handler_in_python() {
    assert_no_stranger_gets_mail("savealife-tls-python", python).await;
}
