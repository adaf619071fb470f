//! Pure: a wrapper for bytes that must never be printed.
//!
//! A value from Vault, a token or a credential lives in [`Sensitive`] from the socket to the request
//! that hands it on. There is no `Deref`, `Display` or `Serialize`: [`Sensitive::expose`] is the only
//! way out, so `grep expose` lists every place that sees a value.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped and shown only as `Sensitive(n bytes)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive(Zeroizing<Vec<u8>>);

impl Sensitive {
    /// Takes ownership of `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes. Call it only where they are hashed, put into a request, or written to a Secret.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, `None` when they are not UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sensitive({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_length_only() {
        let value = Sensitive::new("hunter2");
        assert_eq!(format!("{value:?}"), "Sensitive(7 bytes)");
        assert_eq!(format!("{:?}", Some(&value)), "Some(Sensitive(7 bytes))");
    }
}
