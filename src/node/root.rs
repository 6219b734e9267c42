//! The root of a new cluster, and the certificate of a manager that has nobody to ask for one.
//!
//! moby takes external authorities at init too, but begins with a root of its own, whose key nobody
//! outside can have. Here the cluster begins with the root that the authority belongs to.

use swarm_core::model::{CaConfig, Cluster, RootCa};
use swarm_core::time::{Clock as _, SystemClock, Timestamp};

use super::status;
use crate::error::{ApiError, Code};
use crate::identity::{
    Authority, Cfssl, Identity, IdentityError, KeyRequest, NodeIdentity, TrustRoot, external, given,
};

/// The root that a new cluster begins with: the one that is given, with its key or with an authority
/// outside that has it, else one of its own.
///
/// # Errors
/// What is wrong with what was given, in Swarm's words where it has any.
pub(super) fn of_new_cluster(config: &CaConfig, now: Timestamp) -> Result<RootCa, ApiError> {
    let (cert, key) = (&config.signing_ca_cert, &config.signing_ca_key);
    let mut outside = config.external_cas.iter().map(|service| &service.ca_cert);
    let outside = outside.find(|cert| !cert.is_empty());
    if !key.is_empty() {
        if cert.is_empty() {
            return Err(invalid(
                "if a signing CA key is provided, the signing CA cert must also be provided",
            ));
        }
        return Ok(given::authority(cert, key, now).map_err(refused)?.stored());
    }
    let cert = Some(cert).filter(|cert| !cert.is_empty()).or(outside);
    let Some(cert) = cert else {
        if config.external_cas.is_empty() {
            let own = Authority::create(now);
            return Ok(own.map_err(|e| status::local("no root could be made", e))?.stored());
        }
        return Err(invalid(
            "a new swarm cannot begin with an external CA of an unknown root: give its certificate (cacert=FILE)",
        ));
    };
    let certificate = given::root(cert, now).map_err(refused)?.pem().to_owned();
    if external::services(config, &certificate, &certificate).is_empty() {
        return Err(invalid(
            "there must be at least one valid, reachable external CA corresponding to the current CA certificate",
        ));
    }
    Ok(RootCa { certificate, ..RootCa::default() })
}

/// A new node's identity, by whatever authority the cluster has.
///
/// # Errors
/// As for [`external::issue`].
pub(super) async fn certified(
    cluster: &Cluster,
    identity: &Identity,
) -> Result<NodeIdentity, IdentityError> {
    let (key, outside) = (KeyRequest::generate()?, Cfssl::without_certificate());
    let now = SystemClock.now();
    let certificate = external::issue(cluster, Some(&outside), &key.csr, identity, now).await?;
    NodeIdentity::new(TrustRoot::parse(&cluster.root_ca.trusted())?, certificate, key.key)
}

fn invalid(text: &str) -> ApiError {
    ApiError::rpc(Code::InvalidArgument, text)
}

#[allow(clippy::needless_pass_by_value)]
fn refused(error: IdentityError) -> ApiError {
    invalid(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::model::ExternalCa;

    #[test]
    fn a_root_that_nobody_can_sign_for_is_refused_at_the_beginning() {
        let now = SystemClock.now();
        let own = Authority::create(now).unwrap().stored();
        let key = String::from_utf8(own.key.clone().unwrap().expose().to_vec()).unwrap();
        let decide = |cert: &str, key: &str, outside: &[&str]| {
            let service =
                |cert: &&str| ExternalCa { ca_cert: (*cert).into(), ..Default::default() };
            let config = CaConfig {
                signing_ca_cert: cert.into(),
                signing_ca_key: key.into(),
                external_cas: outside.iter().map(service).collect(),
                ..Default::default()
            };
            of_new_cluster(&config, now).map_err(|error| error.message)
        };
        let cert = own.certificate.as_str();
        assert!(decide("", "", &[]).unwrap().key.is_some(), "a root of its own");
        assert_eq!(decide(cert, &key, &[]).unwrap(), own);
        for (outside, given) in [(cert, ""), (cert, cert), ("", cert)] {
            let root = decide(given, "", &[outside]).unwrap();
            assert_eq!((root.certificate.as_str(), root.key), (cert, None));
        }
        let another = Authority::create(now).unwrap().stored().certificate;
        for (cert, key, outside, why) in [
            ("", key.as_str(), &[][..], "the signing CA cert must also be provided"),
            (cert, "", &[], "at least one valid, reachable external CA"),
            (cert, "", &[another.as_str()], "at least one valid, reachable external CA"),
            ("", "", &[""], "give its certificate"),
            (another.as_str(), key.as_str(), &[], "certificate key mismatch"),
        ] {
            let error = decide(cert, key, outside).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
