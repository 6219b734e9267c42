//! Sockets: who may connect, and what a connection may cost.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::Api;
use swarm::http::{ListenError, ListenSpec, bind, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

async fn answer(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &[u8],
) -> String {
    let talk = async {
        stream.write_all(request).await.expect("it is read");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.expect("an answer")
}

#[tokio::test]
async fn a_unix_socket_is_for_its_group_and_replaces_a_stale_one() {
    let api = Api::still().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
    let spec = ListenSpec::Unix(path.clone());
    let listeners = bind(std::slice::from_ref(&spec), None, false).await.expect("it gives way");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let busy = bind(&[spec], None, false).await;
    assert!(matches!(busy, Err(ListenError::InUse(_))), "one that answers does not");
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(listeners, api.node.clone(), cancel.clone()));
    let stream = UnixStream::connect(&path).await.expect("it listens");
    assert!(answer(stream, PING).await.starts_with("HTTP/1.1 200 OK\r\n"));
    cancel.cancel();
    serving.await.expect("it ends");
    assert!(!path.exists(), "and cleans up");
}

#[tokio::test]
async fn plain_tcp_has_to_be_asked_for_and_stays_at_home() {
    let home: ListenSpec = "tcp://127.0.0.1:0".parse().expect("an address");
    let world: ListenSpec = "tcp://0.0.0.0:0".parse().expect("an address");
    for (spec, insecure) in [(&home, false), (&world, false), (&world, true)] {
        let refused = bind(std::slice::from_ref(spec), None, insecure).await;
        assert!(matches!(refused, Err(ListenError::Insecure(_))), "{spec} {insecure}");
    }
    assert!(bind(&[home], None, true).await.is_ok());
}

#[tokio::test]
async fn garbage_and_silence_hurt_nobody_else() {
    let api = Api::still().await;
    let spec = "tcp://127.0.0.1:0".parse().expect("an address");
    let listeners = bind(&[spec], None, true).await.expect("a port");
    let ListenSpec::Tcp(address) = *listeners[0].spec() else { panic!("TCP was asked for") };
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve(listeners, api.node.clone(), cancel.clone()));
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /ser").await.expect("it is read");
        silent.push(stream);
    }
    let connect = async || TcpStream::connect(address).await.expect("it listens");
    assert!(
        answer(connect().await, b"\x16\x03\x01\0garbage\r\n\r\n").await.starts_with("HTTP/1.1 400")
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(300_000));
    assert!(answer(connect().await, long.as_bytes()).await.contains(" 4"), "a clear refusal");
    // dockerode repeats the whole specification in the query.
    let query = "x".repeat(16_000);
    let long = format!("GET /_ping?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer(connect().await, long.as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert!(answer(connect().await, PING).await.starts_with("HTTP/1.1 200"));
    cancel.cancel();
    serving.await.expect("it ends although clients hang");
}

#[tokio::test]
async fn tls_asks_for_a_certificate_of_the_right_authority() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let dir = tempfile::tempdir().expect("a directory");
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
    };
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let issue = |issuer: &CertifiedIssuer<'static, KeyPair>| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".into()]).expect("parameters");
        (params.signed_by(&key, issuer).expect("signed"), key)
    };
    let (cert, key) = issue(&ours);
    let files = swarm::http::TlsFiles {
        ca: write("ca.pem", &ours.pem()),
        cert: write("cert.pem", &cert.pem()),
        key: write("key.pem", &key.serialize_pem()),
    };
    let spec = "tcp://127.0.0.1:0".parse().expect("an address");
    let listeners = bind(&[spec], Some(&files), false).await.expect("a port");
    let ListenSpec::Tcp(address) = *listeners[0].spec() else { panic!("TCP was asked for") };
    let cancel = CancellationToken::new();
    tokio::spawn(serve(listeners, Api::still().await.node, cancel.clone()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ours.der().clone()).expect("a root");
    for (issuer, welcome) in [(Some(&ours), true), (Some(&theirs), false), (None, false)] {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots.clone());
        let config = match issuer.map(issue) {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
                config.with_client_auth_cert(vec![cert.der().clone()], key.into()).expect("a pair")
            }
        };
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = "localhost".try_into().expect("a name");
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = connector.connect(name, stream).await.expect("the server is known");
        assert_eq!(answer(stream, PING).await.contains("200 OK"), welcome);
    }
    cancel.cancel();
}
