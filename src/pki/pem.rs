//! Pure: PEM texts.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use crate::sensitive::Sensitive;

/// Characters of base64 in a line (RFC 7468).
const LINE: usize = 64;

/// `der` as one PEM text, with a line break at its end.
pub(super) fn encode(label: &str, der: &[u8]) -> Sensitive {
    let length = der.len().div_ceil(3) * 4;
    let mut base64 = Zeroizing::new(String::with_capacity(length));
    BASE64_STANDARD.encode_string(der, &mut base64);
    // One allocation, so that no copy is left behind: the text, its line breaks, and two lines around it.
    let mut text = Vec::with_capacity(length + length.div_ceil(LINE) + 2 * (label.len() + 20));
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in base64.as_bytes().chunks(LINE) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    Sensitive::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_64_characters_and_the_last_one_ends() {
        let text = encode("THING", &[0; 60]);
        assert_eq!(
            text.expose_text().unwrap(),
            format!(
                "-----BEGIN THING-----\n{}\n{}\n-----END THING-----\n",
                "A".repeat(64),
                "A".repeat(16)
            )
        );
        assert_eq!(
            encode("THING", &[]).expose_text().unwrap(),
            "-----BEGIN THING-----\n-----END THING-----\n"
        );
    }
}
