//! How the model meets JSON: objects as Docker writes them and reads them.
//!
//! Go's decoder, which Docker's clients were built against, matches member names without regard
//! to case, takes `null` for any member, and ignores what it does not know. Docker's clients
//! rely on the first two, and an orchestrator that must hand a specification back unchanged
//! cannot afford the third. [`object!`](crate::object!) declares a struct with exactly that reading: names in
//! any case, `null` as "not given", and unknown members kept in `extra` and written back.
//!
//! `#[serde(flatten)]` would keep unknown members too, but it buffers every value and gives up
//! the case-insensitive reading of nested objects; hence a macro of our own.

use std::sync::Arc;

use serde_json::{Map, Value};

/// Members of an object that this version does not know, kept so that a read and a write of the
/// whole object loses nothing. Costs one word when there are none.
#[derive(Clone, Default, PartialEq)]
pub struct Extra(Option<Arc<Map<String, Value>>>);

impl Extra {
    /// Keeps one member.
    pub fn insert(&mut self, key: String, value: Value) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(key, value);
    }

    /// The kept members, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().flat_map(|map| map.iter())
    }

    /// One kept member, by its exact name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.as_ref()?.get(key)
    }

    /// Whether nothing was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl std::fmt::Debug for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Declares a struct whose serde shape is a Docker JSON object.
///
/// Each field names its JSON member. A field marked `omit` is left out when it equals its
/// default (Go's `omitempty`); an unmarked one is always written. `omit secret` also keeps a
/// credential out of `Debug`. Every struct gets a public
/// `extra` field with the members that were not recognised.
///
/// ```
/// swarm_core::object! {
///     /// A pair.
///     pub struct Pair {
///         /// Left.
///         left: String = "Left",
///         /// Right, left out when zero.
///         right: u64 = "Right" omit,
///     }
/// }
/// let pair: Pair = serde_json::from_str(r#"{"left":"a","RIGHT":null,"Odd":1}"#).unwrap();
/// assert_eq!(serde_json::to_string(&pair).unwrap(), r#"{"Left":"a","Odd":1}"#);
/// ```
#[macro_export]
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $ty:ty = $key:literal $($omit:ident $($secret:ident)?)? , )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Default, PartialEq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
            /// Members that this version does not know, kept as they came.
            pub extra: $crate::json::Extra,
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $( .field(
                        stringify!($field),
                        $crate::object!(@show self.$field, $($($secret)?)?),
                    ) )*
                    .field("extra", &self.extra)
                    .finish()
            }
        }

        impl $crate::json::serde::Serialize for $name {
            fn serialize<S: $crate::json::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                use $crate::json::serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $( $crate::object!(@write map, self.$field, $key, $ty, $($omit)?); )*
                for (key, value) in self.extra.iter() {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }

        impl<'de> $crate::json::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::json::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                struct Members;
                impl<'de> $crate::json::serde::de::Visitor<'de> for Members {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("an object (", stringify!($name), ")"))
                    }
                    fn visit_map<A: $crate::json::serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> ::std::result::Result<$name, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            $(
                                if key.eq_ignore_ascii_case($key) {
                                    if let Some(value) = map.next_value::<Option<$ty>>()? {
                                        object.$field = value;
                                    }
                                    continue;
                                }
                            )*
                            let value = map.next_value::<$crate::json::serde_json::Value>()?;
                            object.extra.insert(key, value);
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
    };
    (@show $self:ident.$field:ident, ) => { &$self.$field };
    (@show $self:ident.$field:ident, secret) => { &format_args!("(secret)") };
    (@write $map:ident, $self:ident.$field:ident, $key:literal, $ty:ty, ) => {
        $map.serialize_entry($key, &$self.$field)?;
    };
    (@write $map:ident, $self:ident.$field:ident, $key:literal, $ty:ty, omit) => {
        if $self.$field != <$ty>::default() {
            $map.serialize_entry($key, &$self.$field)?;
        }
    };
}

/// Declares an enum whose serde shape is one of Docker's words.
///
/// Reading ignores case and takes the empty word for the default (the first variant). An unknown
/// word is an error in Docker's form, `invalid Role: "bogus"`.
#[macro_export]
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident as $docker:literal {
            $(#[$first_meta:meta])* $first:ident = $first_word:literal,
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            #[default]
            $(#[$first_meta])* $first,
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// The word that Docker's JSON uses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> ::std::result::Result<Self, String> {
                if word.is_empty() || word.eq_ignore_ascii_case($first_word) {
                    return Ok(Self::$first);
                }
                $( if word.eq_ignore_ascii_case($word) { return Ok(Self::$variant); } )*
                Err($crate::json::unknown_word($docker, word))
            }
        }

        impl $crate::json::serde::Serialize for $name {
            fn serialize<S: $crate::json::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> $crate::json::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::json::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let word = <String as $crate::json::serde::Deserialize>::deserialize(deserializer)?;
                word.parse().map_err($crate::json::serde::de::Error::custom)
            }
        }
    };
}

/// The engine's words for a word that it does not know: `invalid KIND: "WORD"`, or where the kind
/// has a place for it, that text with the word.
#[doc(hidden)]
#[must_use]
pub fn unknown_word(kind: &str, word: &str) -> String {
    match kind.split_once("{}") {
        Some((before, after)) => format!("{before}{word}{after}"),
        None => format!("invalid {kind}: {word:?}"),
    }
}

// The macros reach serde through here, so that a crate that uses them needs no dependency on it.
#[doc(hidden)]
pub use {serde, serde_json};
