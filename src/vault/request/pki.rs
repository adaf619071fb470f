//! Pure: the requests that are special to the PKI engine. Certificates are issued like everything else.

use http::Method;
use serde::Serialize;

use super::{Repeat, Request, json};
use crate::vault::error::VaultError;
use crate::vault::path::MountPath;

impl Request {
    /// Revokes a certificate (`POST <mount>/revoke`). Revoking one a second time is a success.
    pub fn pki_revoke(mount: &MountPath, serial: &str) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            serial_number: &'a str,
        }
        const OPERATION: &str = "revoke-certificate";
        let path = format!("{mount}/revoke");
        let body = json(&Body {
            serial_number: serial,
        })
        .ok_or_else(|| {
            VaultError::refused(OPERATION, &path, "the request cannot be written as JSON")
        })?;
        Ok(Self {
            method: Method::POST,
            body: Some(body),
            repeat: Repeat::Never,
            ..Self::get(OPERATION, path, format!("{}/revoke", mount.encoded()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_revoked_by_its_serial_number() {
        let mount = MountPath::parse("team/p ki").unwrap();
        let request = Request::pki_revoke(&mount, "0a:0b").unwrap();
        assert_eq!(
            format!("{} {}", request.method(), request.target()),
            "POST team/p%20ki/revoke"
        );
        assert_eq!(request.path(), "team/p ki/revoke");
        assert_eq!(request.repeat(), Repeat::Never);
        let body = request.body().unwrap().expose_text().unwrap();
        assert_eq!(body, r#"{"serial_number":"0a:0b"}"#);
    }
}
