//! Pure: join tokens, `SWMTKN-1-<digest of the root>-<secret>`, both in base 36.
//!
//! The digest is the SHA-256 of the root certificate's PEM, byte for byte as managers send it
//! (SwarmKit: `ca/config.go`), so that a joining node knows the right root before it trusts any.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use ring::{digest, hmac};
use swarm_core::model::SecretBytes;

use super::IdentityError;

const PREFIX: &str = "SWMTKN-1-";
/// ceil(log36(2^256)): digits of a digest.
const DIGEST_DIGITS: usize = 50;
/// ceil(log36(2^128)): digits of a secret.
const SECRET_DIGITS: usize = 25;

/// The SHA-256 of a root certificate's PEM.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RootDigest([u8; 32]);

impl RootDigest {
    /// The digest of this PEM, byte for byte.
    #[must_use]
    pub fn of(pem: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, pem.as_bytes()).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What lets a node join: which root to trust, and a secret that shows the role it may take.
/// `Debug` leaves the secret out; only [`expose`](Self::expose) writes it.
#[derive(Clone)]
pub struct JoinToken {
    root: RootDigest,
    secret: [u8; 16],
}

impl JoinToken {
    /// A new token for this root, with a new secret: also how a token is rotated.
    pub fn generate(root: RootDigest, rng: &mut impl Rng) -> Self {
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self { root, secret }
    }

    /// The root that it pins.
    #[must_use]
    pub fn root(&self) -> RootDigest {
        self.root
    }

    /// The whole token, as operators pass it around.
    #[must_use]
    pub fn expose(&self) -> String {
        let root = to_base36(&self.root.0, DIGEST_DIGITS);
        format!("{PREFIX}{root}-{}", to_base36(&self.secret, SECRET_DIGITS))
    }

    /// The whole token, for a request.
    #[must_use]
    pub fn to_secret(&self) -> SecretBytes {
        self.expose().into_bytes().into()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.root)
    }
}

impl FromStr for JoinToken {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parse = || {
            let (root, secret) = text.strip_prefix(PREFIX)?.split_once('-')?;
            Some(Self {
                root: RootDigest(from_base36(root, DIGEST_DIGITS)?),
                secret: from_base36(secret, SECRET_DIGITS)?,
            })
        };
        parse().ok_or(IdentityError::InvalidToken)
    }
}

/// Whether a presented token is the expected one, in a time that depends on neither's content.
/// An empty expectation (a cluster without tokens) matches nothing.
#[must_use]
pub fn matches(expected: &str, presented: &[u8]) -> bool {
    // Comparing tags under one key leaks nothing of the values, not even their common prefix.
    let key = hmac::Key::new(hmac::HMAC_SHA256, PREFIX.as_bytes());
    let tag = hmac::sign(&key, expected.as_bytes());
    !expected.is_empty() & hmac::verify(&key, presented, tag.as_ref()).is_ok()
}

/// A big-endian number in base 36, padded with zeros to `width` digits.
fn to_base36(number: &[u8], width: usize) -> String {
    let mut number = number.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            rest = value % 36;
        }
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[rest as usize];
    }
    digits.into_iter().map(char::from).collect()
}

/// The number of exactly `width` digits `[0-9a-z]`, if it fits into `N` bytes.
fn from_base36<const N: usize>(text: &str, width: usize) -> Option<[u8; N]> {
    if text.len() != width {
        return None;
    }
    let mut number = [0_u8; N];
    for digit in text.bytes() {
        let mut carry = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            b'a'..=b'z' => u32::from(digit - b'a') + 10,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * 36;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const REAL: &str =
        "SWMTKN-1-1h8aps2yszaiqmz2l3oc5392pgk8e49qhx2aj3nyv0ui0hez2a-6qmn92w6bu3jdvnglku58u11a";

    #[test]
    fn a_token_of_a_real_engine_survives_a_round_trip() {
        assert_eq!(REAL.parse::<JoinToken>().unwrap().expose(), REAL);
    }

    #[test]
    fn generated_tokens_have_the_shape_of_docker_and_round_trip() {
        let mut rng = StdRng::seed_from_u64(1);
        for n in 0..500 {
            let token = JoinToken::generate(RootDigest::of(&n.to_string()), &mut rng);
            let text = token.expose();
            assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            let read: JoinToken = text.parse().unwrap();
            assert_eq!((read.root, read.secret), (token.root, token.secret));
        }
    }

    #[test]
    fn rotation_changes_the_secret_alone() {
        let mut rng = StdRng::seed_from_u64(2);
        let root = RootDigest::of("root");
        let (old, new) = (JoinToken::generate(root, &mut rng), JoinToken::generate(root, &mut rng));
        assert_eq!(old.root(), new.root());
        assert_ne!(old.expose(), new.expose());
        assert!(!matches(&old.expose(), new.expose().as_bytes()));
    }

    #[test]
    fn malformed_tokens_are_refused_in_docker_words() {
        let largest = format!("SWMTKN-1-{}-{}", "z".repeat(50), "0".repeat(25));
        let upper = REAL.replace("-6qmn", "-6QMN");
        for text in [
            "",
            "SWMTKN",
            "SWMTKN-1-",
            "SWMTKN-2-1-x-y",
            &REAL[1..],
            &REAL[..REAL.len() - 1],
            &format!("{REAL}a"),
            &format!(" {REAL}"),
            &largest,
            &upper,
            "SWMTKN-1-é-é",
        ] {
            let error = text.parse::<JoinToken>().unwrap_err();
            assert_eq!(error.to_string(), "invalid join token", "{text:?}");
        }
    }

    #[test]
    fn matching_is_exact() {
        assert!(matches("abc", b"abc"));
        for other in ["", "ab", "abd", "abcc"] {
            assert!(!matches("abc", other.as_bytes()), "{other:?}");
        }
        assert!(!matches("", b""), "a cluster without tokens lets nobody in");
    }

    #[test]
    fn debug_hides_the_secret() {
        let token: JoinToken = REAL.parse().unwrap();
        let shown = format!("{token:?}");
        assert!(!shown.contains("6qmn92w6bu3jdvnglku58u11a"), "{shown}");
        assert!(shown.contains(&token.root().to_string()));
    }
}
