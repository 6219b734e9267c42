//! Secrets and configs: named bytes that reach containers as files.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::{ConfigId, Labels, SecretId, Version};
use crate::time::Timestamp;

/// Bytes that must not leak: erased when the last holder drops them, never shown by `Debug`.
/// Clones share one allocation. The JSON, in base64, is for sealed logs and authenticated
/// connections alone; API responses leave the member out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// The bytes. The name is long so that a reader of the calling code sees the exposure.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.len())
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        STANDARD
            .decode(text.as_bytes())
            .map(Self::from)
            // The decoder's own message would quote a byte of the secret.
            .map_err(|_| de::Error::custom("illegal base64 data"))
    }
}

/// Bytes that are not secret; base64 in JSON, as Go writes `[]byte`. Clones share one allocation.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Arc<[u8]>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(|error| de::Error::custom(format!("illegal base64 data: {error}")))?;
        Ok(Self(bytes.into()))
    }
}

crate::object! {
    /// A driver's name and options: of a secret, a network, a log or a volume.
    pub struct Driver {
        /// Its name.
        name: String = "Name" omit,
        /// Its options.
        options: Labels = "Options" omit,
    }
}

crate::object! {
    /// What an operator says of a secret.
    pub struct SecretSpec {
        /// Its unique name.
        name: String = "Name",
        /// Labels.
        labels: Labels = "Labels",
        /// The bytes; absent when a driver provides them, and in every API response.
        data: Option<SecretBytes> = "Data" omit,
        /// An external provider.
        driver: Option<Driver> = "Driver" omit,
        /// How the data is expanded before it reaches a container.
        templating: Option<Driver> = "Templating" omit,
    }
}

crate::object! {
    /// Named bytes that must not leak.
    pub struct Secret {
        /// Its id.
        id: SecretId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: SecretSpec = "Spec",
    }
}

crate::object! {
    /// What an operator says of a config.
    pub struct ConfigSpec {
        /// Its unique name.
        name: String = "Name",
        /// Labels.
        labels: Labels = "Labels",
        /// The bytes.
        data: Blob = "Data" omit,
        /// How the data is expanded before it reaches a container.
        templating: Option<Driver> = "Templating" omit,
    }
}

crate::object! {
    /// Named bytes.
    pub struct Config {
        /// Its id.
        id: ConfigId = "ID",
        /// The commit that last changed the specification.
        version: Version = "Version",
        /// When it was created.
        created_at: Timestamp = "CreatedAt",
        /// When it was last changed.
        updated_at: Timestamp = "UpdatedAt",
        /// The commit that last changed anything. (Ours.)
        revision: Version = "Revision" omit,
        /// What the operator says of it.
        spec: ConfigSpec = "Spec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Change, Object};

    const BYTES: &[u8] = b"Nachtigall, ick hoer dir trapsen";

    /// The forms in which bytes might be shown.
    fn shows(text: &str) -> bool {
        let numbers = |separator| {
            BYTES[..8].iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
        };
        let plain = String::from_utf8_lossy(&BYTES[..8]).into_owned();
        let base64 = STANDARD.encode(&BYTES[..6]);
        let hex: String = BYTES[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [plain, base64, hex, numbers(", "), numbers(",\n")];
        let text: String = text.split_inclusive('\n').map(str::trim_start).collect();
        forms.iter().any(|form| text.contains(form.as_str()))
    }

    #[test]
    fn debug_of_a_secret_and_of_whatever_holds_it_shows_no_byte() {
        let data = Some(SecretBytes::from(BYTES.to_vec()));
        let id = "abcdefghij0123456789abcde".parse().unwrap();
        let mut secret = Secret { id, ..Secret::default() };
        (secret.spec.name, secret.spec.data) = ("bird".to_owned(), data);
        let batch = Batch::new(Timestamp::from_secs(1), vec![Change::create(secret.clone())]);
        let object = Object::from(secret.clone());
        let shown = format!("{secret:?} {secret:#?} {batch:?} {batch:#?} {object:#?}");
        assert!(shown.contains("bird") && shown.contains("SecretBytes(32 bytes)"), "{shown}");
        assert!(!shows(&shown), "{shown}");
        assert!(shows(&format!("{BYTES:?}")) && shows(&format!("{BYTES:#?}")), "it is told here");
    }

    #[test]
    fn a_panic_with_a_secret_in_its_hands_says_no_byte_of_it() {
        let secret = SecretBytes::from(BYTES.to_vec());
        let panicked = std::panic::catch_unwind(|| {
            let failed = String::from_utf8(vec![0xff]).map(drop).map_err(|_| secret.clone());
            failed.expect("a secret in place of an error");
        });
        let text = panicked.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("SecretBytes(32 bytes)") && !shows(&text), "{text}");
        let refused = serde_json::from_str::<SecretBytes>("\"Nachtigall!\"").unwrap_err();
        assert!(!refused.to_string().contains("Nach"), "{refused}");
    }
}
