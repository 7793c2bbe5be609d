//! TLS between the consumer and the api: a private authority, and certificates that are
//! replaced under the running api.

use crate::support::api::TOKEN;
use crate::support::endpoint::Endpoint;
use crate::support::free_port;
use crate::support::process::{Process, client};
use crate::support::rig::put_rounds;
use crate::support::stage::Stage;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};

/// A folder of this test's, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("streamgate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file at once, as what replaces certificates does; gives its path.
    fn write(&self, name: &str, text: &str) -> String {
        let (new, path) = (self.0.join(format!("{name}.new")), self.0.join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority of one's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the loopback address, and its key.
    fn certificate(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pair_speaks_tls_and_a_certificate_is_replaced_while_it_runs() {
    let stage = Stage::new("tls-pair", 1).await;
    let endpoint = Endpoint::start().await;
    let folder = Folder::new("tls-pair");
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let (certificate, key) = ours.certificate();
    let files = (folder.write("tls.crt", &certificate), folder.write("tls.key", &key));
    let (ca, next_ca) =
        (folder.write("ca.crt", &ours.pem()), folder.write("next.crt", &next.pem()));
    let private = free_port();
    let keeper =
        stage.api(private, &[("TLS_CERT_FILE", &files.0), ("TLS_KEY_FILE", &files.1)]).await;
    let url = format!("https://{private}");
    let consumer = async |ca: &str| {
        let handler = ("HANDLER", endpoint.url.as_str());
        let api = [("API_URL", url.as_str()), ("API_TOKEN", TOKEN), ("API_CA_FILE", ca)];
        stage.start(&[&[handler], &api[..]].concat()).await
    };
    let mut process = consumer(&ca).await;
    process.listening().await;
    put_rounds(&stage.simulator, 5, 0..1);
    endpoint.until_distinct(5).await;
    process.until("/readyz", |code, _| code == 200).await;
    process.stop().await;

    // Another authority, which is not the api's: it waits, and says why.
    let mut stranger = consumer(&next_ca).await;
    stranger.listening().await;
    let untrusted = |code: u16, body: &str| code == 503 && body.contains("UnknownIssuer");
    stranger.until("/readyz", untrusted).await;
    // A certificate that does not go with the key changes nothing.
    let (certificate, key) = next.certificate();
    folder.write("tls.crt", &certificate);
    let refused = |lines: &[String]| {
        let line = lines.iter().find(|line| line.contains("going on with the old one"));
        line.cloned()
    };
    let line = keeper.stderr.find("that the certificate cannot be used", refused).await;
    assert!(line.contains("does not go with the certificate"), "{line}");
    stranger.until("/readyz", untrusted).await;
    // With its key it is taken within seconds, and the one that waits goes on by itself.
    folder.write("tls.key", &key);
    put_rounds(&stage.simulator, 5, 1..2);
    endpoint.until_distinct(10).await;
    stranger.until("/readyz", |code, _| code == 200).await;
    stranger.stop().await;
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_to_a_listener_of_tls_is_told_so() {
    let stage = Stage::new("tls-plain", 1).await;
    let folder = Folder::new("tls-plain");
    let (certificate, key) = Authority::new("ours").certificate();
    let files = (folder.write("tls.crt", &certificate), folder.write("tls.key", &key));
    let private = free_port();
    let keeper =
        stage.api(private, &[("TLS_CERT_FILE", &files.0), ("TLS_KEY_FILE", &files.1)]).await;
    let plain = format!("http://{private}");
    let asked = client().post(format!("{plain}/v1/hello")).bearer_auth(TOKEN).body("{}");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let said = answer.text().await.unwrap();
    assert!(said.contains("this listener speaks TLS"), "{said}");
    // So the consumer ends with what to do.
    let variables = [("API_URL", plain.as_str()), ("API_TOKEN", TOKEN)];
    let ended = stage.start(&variables).await.ended().await;
    assert_eq!(ended.code, Some(1));
    let last = ended.stderr.last().unwrap();
    assert!(last.contains("API_URL begins with https:// here"), "{last}");
    // The public listener is plain as ever, for probes and scrapes.
    assert_eq!(keeper.get("/healthz").await.0, 200);
    keeper.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_faults_of_the_configuration() {
    let folder = Folder::new("tls-faults");
    let (certificate, key) = Authority::new("ours").certificate();
    let (_, other_key) = Authority::new("ours").certificate();
    let good = (folder.write("tls.crt", &certificate), folder.write("tls.key", &key));
    let other = folder.write("other.key", &other_key);
    let empty = folder.write("empty.crt", "");
    let nowhere = "/nowhere/tls.crt".to_owned();
    for (certificate, key, says) in [
        (Some(&good.0), None, "TLS_KEY_FILE is not set, but TLS_CERT_FILE is"),
        (None, Some(&good.1), "TLS_CERT_FILE is not set, but TLS_KEY_FILE is"),
        (Some(&nowhere), Some(&good.1), "which cannot be read"),
        (Some(&empty), Some(&good.1), "which has no certificate in it"),
        (Some(&good.0), Some(&other), "which does not go with the certificate"),
    ] {
        let mut variables = vec![("TABLE_NAME", "people"), ("API_TOKEN", TOKEN)];
        variables.extend(certificate.map(|path| ("TLS_CERT_FILE", path.as_str())));
        variables.extend(key.map(|path| ("TLS_KEY_FILE", path.as_str())));
        let ended = Process::start(&["api"], &variables).ended().await;
        assert_eq!(ended.code, Some(64), "{says}");
        let [line] = &ended.stderr[..] else { panic!("one line: {:#?}", ended.stderr) };
        assert!(line.contains(says), "{line}");
    }
    assert!(Path::new(&good.0).exists());
    let arn =
        "arn:aws:dynamodb:eu-central-1:123456789012:table/people/stream/2026-01-02T03:04:05.678";
    for (url, ca, says) in [
        ("http://api:8081", &good.0, "API_URL is no https://"),
        ("https://api:8081", &empty, "which has no certificates in it"),
        ("https://api:8081", &nowhere, "which cannot be read"),
    ] {
        let variables = [
            ("STREAM_ARN", arn),
            ("TABLE_NAME", "people"),
            ("API_TOKEN", TOKEN),
            ("API_URL", url),
            ("API_CA_FILE", ca),
        ];
        let ended = Process::start(&["consumer"], &variables).ended().await;
        assert_eq!(ended.code, Some(64), "{says}");
        assert!(ended.stderr[0].contains(says), "{:#?}", ended.stderr);
    }
}
