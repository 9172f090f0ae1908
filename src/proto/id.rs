//! Ids as newtypes. Names are `[A-Za-z0-9._-]{1,64}`; 64-bit ids travel as hex strings, since JSON readers round above 2^53.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest node or master name, in bytes.
pub const NAME_MAX: usize = 64;

/// A name was empty, too long, held a character outside `[A-Za-z0-9._-]` or began with a dot or a dash: names become directories and
/// words of command lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to {NAME_MAX} of A-Z a-z 0-9 . _ - and begins with a letter, a digit or _")]
pub struct BadName;

fn check_name(s: &str) -> Result<(), BadName> {
    let ok = (1..=NAME_MAX).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !s.starts_with(['.', '-']);
    if ok { Ok(()) } else { Err(BadName) }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Eq, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                // What was copied from one another is soon seen to be the same.
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            /// Checks the characters and the length.
            pub fn new(s: &str) -> Result<Self, BadName> {
                check_name(s)?;
                Ok(Self(Arc::from(s)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(s: &str) -> Result<Self, BadName> {
                Self::new(s)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::new(&s).map_err(de::Error::custom)
            }
        }
    };
}

name_id!(
    /// The lasting name of a cache node: `n1`.
    NodeId
);
name_id!(
    /// The lasting name of a master: `m1`.
    MasterId
);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// A fresh one from the operating system's generator; never 0.
            pub fn random() -> Self {
                Self(rand::random::<u64>().max(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(s, 16).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                s.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// One life of a node: drawn at process start and after FENCED (ARCHITECTURE: identity).
    Incarnation
);
hex_id!(
    /// Which cluster a message belongs to.
    ClusterId
);
hex_id!(
    /// The state directory a process holds the lock of.
    HomeId
);

/// One life of one node: what every holder of data is named by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ref {
    /// The node's lasting name.
    pub id: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:08x}", self.id, self.incarnation.0 >> 32)
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who leads, or led: ordered by term, then name. One term may have several leaders by (term, id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaderId {
    /// Raft term.
    pub term: u64,
    /// The master's name.
    pub id: MasterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_plain() {
        assert!(NodeId::new("n1").is_ok());
        assert!(NodeId::new(&"a".repeat(64)).is_ok());
        for bad in ["", "a b", "n\u{1b}", "ü", ".", "..", ".a", "-a", &"a".repeat(65)] {
            assert_eq!(NodeId::new(bad), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn sixty_four_bit_ids_travel_as_hex() {
        let r = Ref { id: NodeId::new("n1").unwrap(), incarnation: Incarnation(u64::MAX) };
        let s = serde_json::to_string(&r).unwrap();
        assert_eq!(s, r#"{"id":"n1","incarnation":"ffffffffffffffff"}"#);
        assert_eq!(serde_json::from_str::<Ref>(&s).unwrap(), r);
    }
}
