//! Who logs in to Vault.
