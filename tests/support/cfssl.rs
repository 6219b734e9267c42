//! A certificate authority outside the cluster: CFSSL's `sign` over https, as far as a swarm uses it.
//! Names nothing of the swarm, so that unit tests can include it too.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A root with its key, PEM.
#[derive(Clone)]
pub struct Root {
    pub cert: String,
    pub key: String,
}

impl Root {
    /// As an operator makes one, good for ten years.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        Self { cert, key: key.serialize_pem() }
    }

    /// Certificate and key of a server at 127.0.0.1 that belongs to the root, PEM.
    pub fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer()).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        Issuer::from_ca_cert_pem(&self.cert, KeyPair::from_pem(&self.key).unwrap()).unwrap()
    }
}

/// A running service. It ends with the test's runtime.
pub struct Service {
    pub url: String,
    /// What it was asked, in order.
    pub seen: Arc<Mutex<Vec<Value>>>,
    /// What it answers instead of signing, while there is any such thing.
    pub instead: Arc<Mutex<Option<(u16, String)>>>,
}

impl Service {
    /// A service that signs with this root's key for whoever shows a certificate of `clients`; for
    /// everyone where there are none.
    pub async fn start(root: &Root, clients: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(tls(root, clients)));
        let (seen, instead) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::default());
        let service = Self { url, seen: seen.clone(), instead };
        let (root, instead) = (root.clone(), service.instead.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (root, seen, instead) = (root.clone(), seen.clone(), instead.clone());
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (root, seen, instead) = (root.clone(), seen.clone(), instead.clone());
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let asked: Value = serde_json::from_slice(&body).unwrap();
                        seen.lock().unwrap().push(asked.clone());
                        let (code, text) = match instead.lock().unwrap().clone() {
                            Some(instead) => instead,
                            None => (200, sign(&root, &asked).to_string()),
                        };
                        let answer = Response::builder().status(code);
                        Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(text))).unwrap())
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        service
    }
}

/// The service proves that it belongs to the root, and asks for a member's certificate if any counts.
fn tls(root: &Root, clients: &str) -> ServerConfig {
    let (cert, key) = root.server();
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(clients.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anyone = roots.is_empty();
    let verifier = || WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier = match anyone {
        true => WebPkiClientVerifier::no_client_auth(),
        false => verifier().build().unwrap(),
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert], key)
        .unwrap()
}

/// What CFSSL does: the key of the request under the name beside it, or under its own.
fn sign(root: &Root, asked: &Value) -> Value {
    let csr = asked["certificate_request"].as_str().unwrap();
    let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
    let hosts = asked["hosts"].as_array().into_iter().flatten();
    let hosts: Vec<String> = hosts.map(|host| host.as_str().unwrap().to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = request.params.distinguished_name.clone();
    if let Some(subject) = asked.get("subject") {
        params.distinguished_name = DistinguishedName::new();
        let name = &subject["names"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        params.distinguished_name.push(DnType::OrganizationName, text(&name["O"]));
        params.distinguished_name.push(DnType::OrganizationalUnitName, text(&name["OU"]));
        params.distinguished_name.push(DnType::CommonName, text(&subject["CN"]));
    }
    let extensions = asked["extensions"].as_array().into_iter().flatten();
    if extensions.into_iter().any(|extension| extension["id"] == "2.5.29.19") {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.signed_by(&request.public_key, &root.issuer()).unwrap();
    json!({"success": true, "result": {"certificate": certificate.pem()}, "errors": [], "messages": []})
}
