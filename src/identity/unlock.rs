//! The key that unlocks managers: `SWMKEY-1-` and 32 random bytes in base64 (SwarmKit:
//! `manager/encryption`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use swarm_core::model::SecretBytes;
use swarm_raft::SealKey;
use zeroize::Zeroizing;

use super::IdentityError;

const PREFIX: &str = "SWMKEY-1-";

/// What unlocks a cluster's managers. `Debug` leaves it out; only [`expose`](Self::expose) writes
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(SecretBytes);

impl UnlockKey {
    /// A new one.
    ///
    /// # Panics
    /// When the operating system has no random bytes.
    #[must_use]
    pub fn generate() -> Self {
        Self(SealKey::generate().expose().to_vec().into())
    }

    /// The key as the cluster object has it.
    #[must_use]
    pub fn of(stored: &SecretBytes) -> Self {
        Self(stored.clone())
    }

    /// The bytes, for the cluster object.
    #[must_use]
    pub fn stored(&self) -> SecretBytes {
        self.0.clone()
    }

    /// What seals a manager's own keys; `None` when an operator gave something shorter or longer.
    #[must_use]
    pub fn seal_key(&self) -> Option<SealKey> {
        SealKey::from_bytes(self.0.expose())
    }

    /// The whole key, as operators keep it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(STANDARD_NO_PAD.encode(self.0.expose()));
        Zeroizing::new(format!("{PREFIX}{}", *digits))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

impl FromStr for UnlockKey {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix(PREFIX).ok_or(IdentityError::InvalidUnlockKey)?;
        let bytes = STANDARD_NO_PAD.decode(digits).map_err(|_| IdentityError::InvalidUnlockKey)?;
        Ok(Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_swarmkit_does_and_comes_back() {
        // `encryption.HumanReadableKey` of the bytes 0 to 31.
        let text = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        let key: UnlockKey = text.parse().unwrap();
        assert_eq!(key.stored().expose(), (0..32).collect::<Vec<u8>>());
        assert_eq!(key.expose().as_str(), text);
        assert_eq!(UnlockKey::of(&key.stored()), key);
        let new = UnlockKey::generate();
        assert_ne!(new, UnlockKey::generate());
        assert_eq!(new.expose().parse::<UnlockKey>().unwrap(), new);
        assert_eq!(format!("{new:?}"), "UnlockKey(..)");
        for bad in ["", "SWMKEY-2-AAEC", "SWMKEY-1-AAE=", "SWMKEY-1-???", "SWMTKN-1-AAEC"] {
            let error = bad.parse::<UnlockKey>().unwrap_err();
            assert_eq!(error.to_string(), "invalid key string", "{bad}");
        }
        assert!("SWMKEY-1-AAEC".parse::<UnlockKey>().unwrap().seal_key().is_none());
    }
}
