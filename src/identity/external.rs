//! Authorities outside the cluster: the root's key is theirs, and managers ask them to sign.
//!
//! [`ExternalAuthority`] is what a manager needs of one; [`Cfssl`] speaks the HTTP interface of
//! CFSSL, as SwarmKit does (`ca/external.go`), over TLS 1.3.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateSigningRequestParams, PublicKeyData as _};
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use swarm_core::model::{CaConfig, Cluster, ExternalCa};
use swarm_core::time::Timestamp;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::{
    Authority, CA_NAME, Credentials, Identity, IdentityError, MANAGER_NAME, NodeCertificate,
    TrustRoot, given, tls,
};

/// How long a service may take to answer (SwarmKit: 5 seconds).
const WITHIN: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: usize = 256 << 10;
/// The profile under which a service signs for authorities.
const CROSS_SIGN_PROFILE: &str = "CA";
/// "It is a certificate authority", as an extension: for services that ignore what a request says.
const BASIC_CONSTRAINTS: (&str, &str) = ("2.5.29.19", "30030101ff");

/// Signs with a root key that is not in the cluster. `service` is one of those that the operator
/// named, `root` the certificate that belongs to its key.
#[async_trait]
pub trait ExternalAuthority: Send + Sync + 'static {
    /// Whether the service can be reached and proves to belong to `root`.
    ///
    /// # Errors
    /// [`IdentityError::External`] when not.
    async fn probe(&self, service: &ExternalCa, root: &TrustRoot) -> Result<(), IdentityError>;

    /// A certificate in PEM for a member's key. What it says is checked by the caller.
    ///
    /// # Errors
    /// [`IdentityError::External`] when the service does not sign. Try another one, or later.
    async fn sign(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        csr: &str,
        identity: &Identity,
    ) -> Result<String, IdentityError>;

    /// A certificate in PEM for the key and name of another root, from its own request.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    async fn cross_sign(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        csr: &str,
    ) -> Result<String, IdentityError>;
}

/// The services that sign for a root, in the order in which the operator named them. Those without
/// a certificate of their own sign for the cluster's present root.
#[must_use]
pub fn services<'a>(config: &'a CaConfig, present: &str, root: &str) -> Vec<&'a ExternalCa> {
    let (present, root) = (given::normalized(present), given::normalized(root));
    let signs = |service: &&ExternalCa| match service.ca_cert.is_empty() {
        true => present == root,
        false => given::normalized(&service.ca_cert) == root,
    };
    config.external_cas.iter().filter(signs).collect()
}

/// Certifies a member's key with whatever the cluster has issue now: external services where any
/// are named for the root, otherwise the key in the store.
///
/// # Errors
/// [`IdentityError::Request`] for a damaged request, [`IdentityError::External`] when no service
/// signs, [`IdentityError::NoSigningKey`] when there is neither service nor key.
pub async fn issue(
    cluster: &Cluster,
    external: Option<&dyn ExternalAuthority>,
    csr: &str,
    identity: &Identity,
    now: Timestamp,
) -> Result<String, IdentityError> {
    let (root_ca, config) = (&cluster.root_ca, &cluster.spec.ca_config);
    let rotation = root_ca.rotation.as_ref();
    let root = rotation.map_or(&root_ca.certificate, |rotation| &rotation.certificate);
    let services = services(config, &root_ca.certificate, root);
    let (Some(external), false) = (external, services.is_empty()) else {
        let expiry = config.node_cert_expiry.duration();
        return Authority::issuing(root_ca)?.issue(csr, identity, expiry, now);
    };
    let root = TrustRoot::parse(root)?;
    let mut failure = IdentityError::NoSigningKey;
    for service in services {
        let signed = external.sign(service, &root, csr, identity).await;
        match signed.and_then(|pem| checked(service, pem, &root, csr, identity)) {
            Ok(pem) => {
                let cross_signed = rotation.map_or("", |rotation| &rotation.cross_signed);
                return Ok(pem + cross_signed);
            }
            Err(error) => {
                warn!(url = service.url, %error, "an external authority does not sign");
                failure = error;
            }
        }
    }
    Err(failure)
}

/// A service is trusted with the key, but a slip of its configuration must not make members.
fn checked(
    service: &ExternalCa,
    pem: String,
    root: &TrustRoot,
    csr: &str,
    identity: &Identity,
) -> Result<String, IdentityError> {
    let request = CertificateSigningRequestParams::from_pem(csr)
        .map_err(|error| IdentityError::Request(error.to_string()))?;
    let read = NodeCertificate::from_pem(&pem, root)?;
    if read.identity == *identity && read.public_key == request.public_key.der_bytes() {
        return Ok(match pem.ends_with('\n') {
            true => pem,
            false => pem + "\n",
        });
    }
    Err(external(service, "it signed another name or key than it was asked to"))
}

fn external(service: &ExternalCa, reason: impl std::fmt::Display) -> IdentityError {
    IdentityError::External { url: service.url.clone(), reason: reason.to_string() }
}

/// Services that speak CFSSL's protocol. They see this node's certificate, once it has one.
pub struct Cfssl(Option<Arc<Credentials>>);

/// What CFSSL is asked.
#[derive(Serialize)]
struct SignRequest<'a> {
    hosts: Vec<&'a str>,
    certificate_request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Subject<'a>>,
    profile: &'a str,
    crl_override: &'a str,
    label: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension<'a>>,
}

#[derive(Serialize)]
struct Subject<'a> {
    #[serde(rename = "CN")]
    common_name: &'a str,
    names: [Name<'a>; 1],
}

#[derive(Serialize)]
struct Name<'a> {
    #[serde(rename = "O")]
    organization: &'a str,
    #[serde(rename = "OU")]
    unit: &'a str,
}

#[derive(Serialize)]
struct Extension<'a> {
    id: &'a str,
    critical: bool,
    value: &'a str,
}

/// What CFSSL answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    result: Option<Signed>,
    #[serde(default)]
    errors: Option<Vec<Fault>>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Cfssl {
    /// Services that are shown this node's certificate.
    #[must_use]
    pub fn new(credentials: Arc<Credentials>) -> Self {
        Self(Some(credentials))
    }

    /// Services that are shown no certificate: for the first one of a cluster's only manager.
    #[must_use]
    pub fn without_certificate() -> Self {
        Self(None)
    }

    async fn connect(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
    ) -> Result<(TlsStream<TcpStream>, Uri), IdentityError> {
        let failed = |error: &dyn std::fmt::Display| external(service, error);
        let uri: Uri = service.url.parse().map_err(|error| failed(&error))?;
        if uri.scheme_str() != Some("https") {
            return Err(failed(&"invalid HTTP scheme"));
        }
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(|e| failed(&e))?;
        let name = ServerName::try_from(bare).map_err(|error| failed(&error))?;
        let connector = TlsConnector::from(tls::external_config(self.0.as_ref(), root)?);
        let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
        Ok((stream, uri))
    }

    async fn ask(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        request: &SignRequest<'_>,
    ) -> Result<String, IdentityError> {
        let failed = |error: &dyn std::fmt::Display| external(service, error);
        let body = serde_json::to_vec(request).map_err(|error| failed(&error))?;
        let (stream, uri) = self.connect(service, root).await?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let asking = async {
            let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| failed(&error))?.to_bytes()))
        };
        // The connection lives in this future: nothing is left when the caller gives up.
        let (status, body) = tokio::select! {
            asked = asking => asked?,
            Err(error) = connection => return Err(failed(&error)),
        };
        certificate_of(status, &body).map_err(|reason| failed(&reason))
    }
}

/// The certificate in an answer, or what is wrong with it (SwarmKit's words).
fn certificate_of(status: StatusCode, body: &[u8]) -> Result<String, String> {
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(body);
        let code = status.as_u16();
        return Err(format!("unexpected status code in CSR response: {code} - {}", text.trim()));
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("unable to parse JSON response: {error}"))?;
    match (answer.success, answer.result, answer.errors.unwrap_or_default()) {
        (true, Some(signed), _) => Ok(signed.certificate),
        (_, _, errors) if !errors.is_empty() => {
            let errors: Vec<_> =
                errors.iter().map(|fault| format!("{} ({})", fault.message, fault.code)).collect();
            Err(format!("response errors: {}", errors.join(", ")))
        }
        _ => Err("certificate signing request failed".to_owned()),
    }
}

async fn in_time<T>(
    service: &ExternalCa,
    work: impl Future<Output = Result<T, IdentityError>>,
) -> Result<T, IdentityError> {
    let late = |_| external(service, format!("no answer within {WITHIN:?}"));
    tokio::time::timeout(WITHIN, work).await.map_err(late)?
}

#[async_trait]
impl ExternalAuthority for Cfssl {
    async fn probe(&self, service: &ExternalCa, root: &TrustRoot) -> Result<(), IdentityError> {
        in_time(service, self.connect(service, root)).await.map(drop)
    }

    async fn sign(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        csr: &str,
        identity: &Identity,
    ) -> Result<String, IdentityError> {
        let mut hosts = vec![identity.unit(), identity.node.as_str()];
        if identity.unit() == MANAGER_NAME {
            hosts.push(CA_NAME);
        }
        let (cluster, unit) = (identity.cluster.as_str(), identity.unit());
        let request = SignRequest {
            hosts,
            certificate_request: csr,
            subject: Some(Subject {
                common_name: identity.node.as_str(),
                names: [Name { organization: cluster, unit }],
            }),
            profile: "",
            crl_override: "",
            label: "",
            extensions: Vec::new(),
        };
        in_time(service, self.ask(service, root, &request)).await
    }

    async fn cross_sign(
        &self,
        service: &ExternalCa,
        root: &TrustRoot,
        csr: &str,
    ) -> Result<String, IdentityError> {
        let (id, value) = BASIC_CONSTRAINTS;
        // Without a subject of its own, the service takes name and key from the request.
        let request = SignRequest {
            hosts: Vec::new(),
            certificate_request: csr,
            subject: None,
            profile: CROSS_SIGN_PROFILE,
            crl_override: "",
            label: "",
            extensions: vec![Extension { id, critical: true, value }],
        };
        in_time(service, self.ask(service, root, &request)).await
    }
}

#[cfg(test)]
#[path = "external_tests.rs"]
mod tests;
