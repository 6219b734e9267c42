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
