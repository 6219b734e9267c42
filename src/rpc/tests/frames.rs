//! Frames, bytes and protocols that no client of ours sends: refused in words, and harmless.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use swarm_core::model::TaskStatus;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::*;
use crate::identity::tls::joining_config;
use crate::rpc::MAX_FROM_NODE;
use crate::rpc::authorize::Method;
use crate::rpc::client::channel;

/// Sends one body as it is and returns gRPC's code and text.
async fn send(
    world: &World,
    credentials: &Arc<Credentials>,
    path: &str,
    body: Vec<u8>,
) -> (i32, String) {
    post(&world.addr, credentials.client_config().unwrap(), path, body).await.unwrap()
}

/// As `send`, for callers who may not even come through the handshake.
pub(super) async fn post(
    addr: &str,
    tls: Arc<rustls::ClientConfig>,
    path: &str,
    body: Vec<u8>,
) -> Result<(i32, String), ApiError> {
    let channel = channel(addr, tls).await?;
    let request = http::Request::post(format!("http://{addr}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(Bytes::from(body))))
        .unwrap();
    let response = channel.oneshot(request).await;
    let response = response.map_err(|e| ApiError::plain(Code::Unavailable, format!("{e:?}")))?;
    let mut headers = response.headers().clone();
    if let Ok(collected) = response.into_body().collect().await
        && let Some(trailers) = collected.trailers()
    {
        headers.extend(trailers.clone());
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    Ok((text("grpc-status").unwrap().parse().unwrap(), text("grpc-message").unwrap_or_default()))
}

fn frame(declared: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(declared.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(super) fn whole(payload: &[u8]) -> Vec<u8> {
    frame(u32::try_from(payload.len()).unwrap(), payload)
}

#[tokio::test]
async fn malformed_frames_are_refused_in_words_and_harm_nobody() {
    let world = World::start().await;
    let member = world.member(NodeRole::Manager, SystemClock.now());
    let limit = u32::try_from(MAX_FROM_NODE).unwrap();
    let mut compressed = whole(b"{}");
    compressed[0] = 1;
    let cases: [(&str, Vec<u8>, i32, &str); 9] = [
        ("nothing", vec![], 13, "Missing request message"),
        ("half a header", vec![0, 0], 13, ""),
        ("a truncated payload", frame(100, b"{}"), 13, ""),
        ("more than the limit", frame(limit + 1, b"{}"), 11, "message length too large"),
        ("the largest length", frame(u32::MAX, b""), 11, "message length too large"),
        ("a compressed frame", compressed, 13, "compressed-flag"),
        ("no JSON", whole(b"\xff\xfe\x00"), 3, "malformed RenewRequest: not JSON"),
        ("half of JSON", whole(b"{\"csr\":\"x"), 3, "malformed RenewRequest: cut short"),
        ("other JSON", whole(b"{\"csr\":{\"s3cret\":1}}"), 3, "JSON of another shape"),
    ];
    for (what, body, code, text) in cases {
        let answer = send(&world, &member, Method::RenewCertificate.path(), body).await;
        let said = answer.1.replace("%20", " ");
        assert_eq!(answer.0, code, "{what}: {said}");
        assert!(said.contains(text), "{what}: {said}");
        assert!(!said.contains("s3cret"), "a refusal quotes nothing: {said}");
    }
    world.assert_serving().await;
}

#[tokio::test]
async fn a_malformed_message_ends_its_session_and_no_other() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    let (to, mut from) = client.session().await.unwrap();
    for body in [whole(b"nonsense"), whole(b"{\"Dance\":1}"), frame(u32::MAX, b"")] {
        // The echo ends at the first error; the stream then closes in order.
        let (code, text) = send(&world, &member, Method::Session.path(), body).await;
        assert_eq!(code, 0, "{text}");
    }
    to.send(AgentMessage::Heartbeat).await.unwrap();
    assert!(matches!(from.next().await, Some(Ok(_))), "the other session lives");
}

#[tokio::test]
async fn unknown_calls_are_refused_by_default() {
    let world = World::start().await;
    let member = world.member(NodeRole::Manager, SystemClock.now());
    for path in ["/", "/swarm.CA/Other", "/swarm.Raft/Append"] {
        let (code, _) = send(&world, &member, path, whole(b"{}")).await;
        assert_eq!(code, 12, "{path} is unimplemented");
    }
}

#[tokio::test]
async fn plain_http_on_the_port_hears_why_not() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(&world.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("speaks TLS"), "{answer}");
    world.assert_serving().await;
}

#[tokio::test]
async fn garbage_before_and_inside_tls_harms_nobody() {
    let world = World::start().await;
    for garbage in [&b"\x16\x03\x01\xff\xff\xff\xff"[..], &[0x16; 4096], &[0; 64], b""] {
        let mut stream = TcpStream::connect(&world.addr).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        // The server closes: with an alert, a word, or nothing.
        let _ = stream.read_to_end(&mut answer).await;
    }
    let tls = joining_config(world.authority.root()).unwrap();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff"]
    {
        let stream = TcpStream::connect(&world.addr).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("swarm-manager").unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.clone());
        let mut stream = connector.connect(name, stream).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    world.assert_serving().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_delays_nobody() {
    let world = World::start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&world.addr).await.unwrap();
        stream.write_all(b"\x16").await.unwrap();
        silent.push(stream);
    }
    world.assert_serving().await;
}

#[tokio::test]
async fn a_message_over_the_limit_fails_its_own_call_alone() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    client.renew("x".repeat(MAX_FROM_NODE + 1)).await.unwrap_err();
    let error = client.renew("x".repeat(MAX_FROM_NODE / 2)).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound, "half of the limit arrives: {error}");
    world.assert_serving().await;
}

#[tokio::test]
async fn very_many_statuses_at_once_arrive_in_parts() {
    let world = World::start().await;
    let member = world.member(NodeRole::Worker, SystemClock.now());
    let client = ManagerClient::connect(&world.addr, &member).await.unwrap();
    let (to, mut from) = client.session().await.unwrap();
    let mut ids = IdSource::random();
    let status = TaskStatus { message: "x".repeat(1_000).into(), ..TaskStatus::default() };
    let statuses = (0..10_000).map(|_| (ids.next(), status.clone())).collect();
    to.send(AgentMessage::Statuses(statuses)).await.unwrap();
    drop(to);
    let mut parts = 0;
    while let Some(answer) = from.next().await {
        answer.unwrap();
        parts += 1;
    }
    assert_eq!(parts, 5, "ten megabytes in messages of two thousand statuses");
}
