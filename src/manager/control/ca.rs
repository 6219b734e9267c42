//! Which root the cluster has after an operator's wish (SwarmKit: `controlapi/ca_rotation.go`).

use std::sync::Arc;

use swarm_core::model::{CaConfig, Cluster, ExternalCa, JoinTokens, RootCa, RootRotation, TlsInfo};
use swarm_core::time::Timestamp;
use tracing::error;

use super::invalid;
use crate::error::{ApiError, Code};
use crate::identity::external::{ExternalAuthority, services};
use crate::identity::{Authority, IdentityError, JoinToken, TrustRoot, given};

/// The root that the operator wants.
struct Wanted {
    root: TrustRoot,
    /// Absent when its key is with an external authority.
    authority: Option<Authority>,
}

/// Decides on the root. Nothing is written: services outside are asked meanwhile.
pub(super) struct RootChange<'a> {
    /// The cluster as it is.
    pub cluster: &'a Cluster,
    /// The settings as they shall be.
    pub config: &'a CaConfig,
    /// Who asks the services.
    pub external: Option<&'a Arc<dyn ExternalAuthority>>,
    /// What time it is.
    pub now: Timestamp,
}

impl RootChange<'_> {
    /// The root and the rotation to be.
    ///
    /// # Errors
    /// What is wrong with what was given, or that a service that is needed cannot be reached.
    pub(super) async fn decide(&self) -> Result<RootCa, ApiError> {
        let (present, config) = (&self.cluster.root_ca, self.config);
        let cert = given::normalized(&config.signing_ca_cert);
        let given_key = !config.signing_ca_key.is_empty();
        if given_key && config.signing_ca_cert.is_empty() {
            return Err(invalid(
                "if a signing CA key is provided, the signing CA cert must also be provided",
            ));
        }
        let same_root = cert == given::normalized(&present.certificate);
        // With the key given there is no need of the services that had it so far.
        if present.key.is_none() && !(given_key && same_root) {
            self.reach(&present.certificate, "current").await?;
        }
        if config.signing_ca_cert.is_empty() {
            return self.without_a_root().await;
        }
        let wanted = self.wanted().map_err(refused)?;
        if wanted.authority.is_none() {
            self.reach(&cert, "desired").await?;
        }
        let key = wanted.authority.as_ref().and_then(|authority| authority.stored().key);
        let forced = config.force_rotate;
        if same_root {
            let last_forced_rotation = forced;
            return Ok(RootCa { key, rotation: None, last_forced_rotation, ..present.clone() });
        }
        if self.has_present_key(&wanted.root).map_err(refused)? {
            return Err(invalid("Cannot update to a cert with an identical key"));
        }
        if let Some(rotation) = &present.rotation
            && given::normalized(&rotation.certificate) == cert
        {
            let rotation = RootRotation { key, ..rotation.clone() };
            let last_forced_rotation = forced;
            return Ok(RootCa {
                rotation: Some(rotation),
                last_forced_rotation,
                ..present.clone()
            });
        }
        self.rotate_to(wanted).await
    }

    /// No root was given: the present one stays, unless a new one was asked for.
    async fn without_a_root(&self) -> Result<RootCa, ApiError> {
        let present = &self.cluster.root_ca;
        if present.last_forced_rotation != self.config.force_rotate {
            let authority = Authority::create(self.now).map_err(refused)?;
            let root = authority.root().clone();
            return self.rotate_to(Wanted { root, authority: Some(authority) }).await;
        }
        if let Some(rotation) = present.rotation.as_ref().filter(|next| next.key.is_none()) {
            self.reach(&rotation.certificate, "next").await?;
        }
        Ok(present.clone())
    }

    fn wanted(&self) -> Result<Wanted, IdentityError> {
        let (cert, key) = (&self.config.signing_ca_cert, &self.config.signing_ca_key);
        if key.is_empty() {
            return Ok(Wanted { root: given::root(cert, self.now)?, authority: None });
        }
        let authority = given::authority(cert, key, self.now)?;
        Ok(Wanted { root: authority.root().clone(), authority: Some(authority) })
    }

    fn has_present_key(&self, root: &TrustRoot) -> Result<bool, IdentityError> {
        let present = TrustRoot::parse(&self.cluster.root_ca.certificate)?;
        let (present, root) = (present.tls_info()?, root.tls_info()?);
        Ok(present.cert_issuer_public_key == root.cert_issuer_public_key)
    }

    /// Begins a rotation, in place of one that is under way.
    async fn rotate_to(&self, wanted: Wanted) -> Result<RootCa, ApiError> {
        let present = &self.cluster.root_ca;
        let cross_signed = match (present.key.is_some(), &wanted.authority) {
            (true, _) => Authority::load(present).and_then(|old| old.cross_sign(&wanted.root)),
            (false, None) => {
                return Err(invalid(
                    "rotating from one external CA to a different external CA is not supported",
                ));
            }
            (false, Some(new)) => self.cross_signed_outside(new).await,
        };
        let cross_signed = cross_signed.map_err(|error| {
            let text = "unable to generate a cross-signed certificate for root rotation";
            error!(%error, "{text}");
            ApiError::rpc(Code::Unknown, format!("{text}: {error}"))
        })?;
        let token = || {
            // Not from a source of ids that a simulation seeds: these are secrets.
            let mut rng: rand::rngs::StdRng = rand::make_rng();
            JoinToken::generate(wanted.root.digest(), &mut rng).expose()
        };
        let rotation = RootRotation {
            certificate: wanted.root.pem().to_owned(),
            key: wanted.authority.as_ref().and_then(|authority| authority.stored().key),
            cross_signed,
            join_tokens: JoinTokens { worker: token(), manager: token(), ..Default::default() },
            ..Default::default()
        };
        let last_forced_rotation = self.config.force_rotate;
        Ok(RootCa { rotation: Some(rotation), last_forced_rotation, ..present.clone() })
    }

    async fn cross_signed_outside(&self, new: &Authority) -> Result<String, IdentityError> {
        let present = &self.cluster.root_ca.certificate;
        let (csr, root) = (new.cross_signing_request()?, TrustRoot::parse(present)?);
        let mut failure = IdentityError::NoSigningKey;
        for service in services(self.config, present, present) {
            let Some(external) = self.external else { break };
            let signed = external.cross_sign(service, &root, &csr).await.and_then(|pem| {
                new.root().is_certified_by(&pem, &root).map(|()| given::normalized(&pem))
            });
            match signed {
                Ok(pem) => return Ok(pem),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// That some service answers for a root.
    async fn reach(&self, root: &str, which: &str) -> Result<(), ApiError> {
        let named = services(self.config, &self.cluster.root_ca.certificate, root);
        let root = TrustRoot::parse(root).map_err(refused)?;
        if let Some(external) = self.external {
            for service in named {
                match external.probe(service, &root).await {
                    Ok(()) => return Ok(()),
                    Err(error) => tracing::warn!(%error, "external CA is unreachable or invalid"),
                }
            }
        }
        Err(invalid(format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
        )))
    }
}

/// Refuses services of another kind than there is (moby: `convert.swarmSpecCAConfigToGRPC`).
pub(crate) fn check_services(services: &[ExternalCa]) -> Result<(), ApiError> {
    match services.iter().find(|service| !service.protocol.eq_ignore_ascii_case("cfssl")) {
        Some(service) => Err(ApiError::plain(
            Code::InvalidArgument,
            format!("invalid protocol: {:?}", service.protocol),
        )),
        None => Ok(()),
    }
}

/// What the cluster says of itself with this root.
pub(super) fn tls_info(root_ca: &RootCa) -> Result<TlsInfo, ApiError> {
    let issuing = match &root_ca.rotation {
        Some(rotation) => &rotation.certificate,
        None => &root_ca.certificate,
    };
    let info = TrustRoot::parse(issuing).and_then(|root| root.tls_info()).map_err(refused)?;
    Ok(TlsInfo { trust_root: root_ca.certificate.clone(), ..info })
}

#[allow(clippy::needless_pass_by_value)]
fn refused(error: IdentityError) -> ApiError {
    let code = match error {
        IdentityError::Given(_) | IdentityError::External { .. } => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    ApiError::rpc(code, error.to_string())
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
