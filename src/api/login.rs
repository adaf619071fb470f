//! Pure: the login methods, and the rules the apiserver checks of them.
//!
//! A new method is a struct, a field of [`LoginMethods`] and a row of `METHODS`.

use kube::{KubeSchema, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    cloud_login::{AwsMethod, AzureMethod, GcpMethod},
    duration::GoDuration,
    refs::{SecretKeyRef, SecretRef, ServiceAccountRef},
};

/// A method as the rules know it: its field, and the fields in it that name a Secret or a ServiceAccount.
struct MethodRow {
    field: &'static str,
    references: &'static [&'static str],
    /// The reference that means something even if it is absent.
    defaulted: Option<&'static str>,
}

/// Every field of [`LoginMethods`].
const METHODS: [MethodRow; 10] = [
    MethodRow {
        field: "kubernetes",
        references: &["serviceAccountRef"],
        defaulted: Some("serviceAccountRef"),
    },
    MethodRow {
        field: "jwt",
        references: &["secretRef", "serviceAccountRef"],
        defaulted: None,
    },
    MethodRow {
        field: "appRole",
        references: &["roleIdRef", "secretIdRef"],
        defaulted: None,
    },
    MethodRow {
        field: "cert",
        references: &["secretRef"],
        defaulted: None,
    },
    MethodRow {
        field: "token",
        references: &["secretRef"],
        defaulted: None,
    },
    MethodRow {
        field: "userPass",
        references: &["passwordRef"],
        defaulted: None,
    },
    MethodRow {
        field: "ldap",
        references: &["passwordRef"],
        defaulted: None,
    },
    MethodRow {
        field: "aws",
        references: &["serviceAccountRef", "secretRef"],
        defaulted: None,
    },
    MethodRow {
        field: "gcp",
        references: &["serviceAccountRef", "secretRef"],
        defaulted: None,
    },
    MethodRow {
        field: "azure",
        references: &["serviceAccountRef"],
        defaulted: None,
    },
];

/// The ways to log in; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", remote = "Self")]
pub struct LoginMethods {
    /// Log in as a ServiceAccount, through Vault's Kubernetes auth method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesMethod>,
    /// Log in with a role id and a secret id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<AppRoleMethod>,
    /// Use a token as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenMethod>,
    /// Log in with a JWT: a token of a ServiceAccount, or one that stands in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtMethod>,
    /// Log in with a TLS client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<CertMethod>,
    /// Log in with a user name and a password that Vault keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_pass: Option<PasswordMethod>,
    /// Log in with a user name and a password that a directory server checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ldap: Option<PasswordMethod>,
    /// Log in as a user or role of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsMethod>,
    /// Log in as a service account of Google Cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcp: Option<GcpMethod>,
    /// Log in as an application or machine of Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureMethod>,
}

impl Serialize for LoginMethods {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Says where a mistake is: whatever is flattened into another struct loses the path of its fields.
impl<'de> Deserialize<'de> for LoginMethods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = serde_json::Value::deserialize(deserializer)?;
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(fields, &mut track);
        Self::deserialize(tracked)
            .map_err(|error| D::Error::custom(format!("{}: {error}", track.path())))
    }
}

impl LoginMethods {
    /// Name and namespace of every Secret that a login reads.
    pub fn secrets(&self) -> Vec<(&str, Option<&str>)> {
        let Self {
            kubernetes: _,
            app_role,
            token,
            jwt,
            cert,
            user_pass,
            ldap,
            aws,
            gcp,
            azure: _,
        } = self;
        let app_role = app_role
            .iter()
            .flat_map(|method| method.role_id_ref.iter().chain([&method.secret_id_ref]));
        let token = token.iter().map(|method| &method.secret_ref);
        let jwt = jwt.iter().filter_map(|method| method.secret_ref.as_ref());
        let gcp = gcp.iter().filter_map(|method| method.secret_ref.as_ref());
        let passwords = user_pass.iter().chain(ldap);
        let keys = app_role
            .chain(token)
            .chain(jwt)
            .chain(gcp)
            .chain(passwords.map(|method| &method.password_ref));
        let cert = cert.iter().map(|method| &method.secret_ref);
        let aws = aws.iter().filter_map(|method| method.secret_ref.as_ref());
        let whole = cert.chain(aws);
        keys.map(|key| (key.name.as_str(), key.namespace.as_deref()))
            .chain(whole.map(|secret| (secret.name.as_str(), secret.namespace.as_deref())))
            .collect()
    }
}

/// The fields of the methods, for people: `kubernetes, appRole or token`.
pub(crate) fn method_names() -> String {
    let fields = METHODS.map(|method| method.field);
    match fields.as_slice() {
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
        [] => String::new(),
    }
}

pub(super) fn exactly_one_method() -> Rule {
    let set = METHODS.map(|method| format!("has(self.{})", method.field));
    let message = format!("exactly one login method must be set: {}", method_names());
    Rule::new(format!("[{}].filter(x, x).size() == 1", set.join(", "))).message(message.as_str())
}

pub(super) fn objects_of_own_namespace() -> Rule {
    Rule::new(no_namespaces())
        .message("a VaultAuth logs in with objects of its own namespace: remove the namespace from the reference, or use a ClusterVaultAuth with identityFrom: Fixed")
}

pub(super) fn objects_of_consumer() -> Rule {
    Rule::new(format!("(has(self.identityFrom) && self.identityFrom == 'Fixed') || ({})", no_namespaces()))
        .message("with identityFrom: Consumer the login uses objects of the consuming namespace: remove the namespace from the reference, or set identityFrom: Fixed")
}

pub(super) fn objects_of_fixed_namespace() -> Rule {
    Rule::new(format!(
        "!has(self.identityFrom) || self.identityFrom != 'Fixed' || ({})",
        all_namespaces()
    ))
    .message("with identityFrom: Fixed every reference of the login method needs a namespace")
}

/// No reference of the method names a namespace.
fn no_namespaces() -> String {
    for_every_reference(|method, reference| {
        format!("!(has({method}) && has({reference}) && has({reference}.__namespace__))")
    })
}

/// Every reference of the method names a namespace.
fn all_namespaces() -> String {
    let named = for_every_reference(|method, reference| {
        format!("!(has({method}) && has({reference}) && !has({reference}.__namespace__))")
    });
    let there = METHODS.iter().filter_map(|method| {
        let (field, reference) = (method.field, method.defaulted?);
        Some(format!(
            " && !(has(self.{field}) && !has(self.{field}.{reference}))"
        ))
    });
    named + &there.collect::<String>()
}

fn for_every_reference(condition: impl Fn(&str, &str) -> String) -> String {
    let conditions = METHODS.iter().flat_map(|method| {
        let field = format!("self.{}", method.field);
        let condition = &condition;
        method
            .references
            .iter()
            .map(move |reference| condition(&field, &format!("{field}.{reference}")))
    });
    conditions.collect::<Vec<_>>().join(" && ")
}

/// Log in as a ServiceAccount. See Vault's `POST auth/kubernetes/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesMethod {
    /// Role of the auth method.
    #[schemars(length(min = 1, max = 256))]
    pub role: String,
    /// The ServiceAccount. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// Audiences of the token that is sent to Vault. Required: a token without one would be valid at the apiserver.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Lifetime of the ServiceAccount token that is sent to Vault. Default and minimum `10m`.
    #[serde(default, rename = "tokenTTL", skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<GoDuration>,
}

/// Log in with a role id and a secret id. See Vault's `POST auth/approle/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.roleId) != has(self.roleIdRef)").message("exactly one of roleId and roleIdRef must be set")
)]
#[serde(rename_all = "camelCase")]
pub struct AppRoleMethod {
    /// The role id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub role_id: Option<String>,
    /// The Secret that holds the role id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_id_ref: Option<SecretKeyRef>,
    /// The Secret that holds the secret id.
    pub secret_id_ref: SecretKeyRef,
    /// The Secret holds a response-wrapping token with the secret id in it, which works once. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_id_wrapped: Option<bool>,
}

/// Use a token as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenMethod {
    /// The Secret that holds the token.
    pub secret_ref: SecretKeyRef,
}

/// Log in with a JWT. See Vault's `POST auth/jwt/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.serviceAccountRef) != has(self.secretRef)")
        .message("exactly one of serviceAccountRef and secretRef must be set"),
    validation = Rule::new("has(self.serviceAccountRef) == has(self.audiences)")
        .message("audiences is required with serviceAccountRef, and cannot be set with secretRef"),
    validation = Rule::new("has(self.serviceAccountRef) || !has(self.tokenTTL)")
        .message("tokenTTL cannot be set with secretRef")
)]
#[serde(rename_all = "camelCase")]
pub struct JwtMethod {
    /// Role of the auth method.
    #[schemars(length(min = 1, max = 256))]
    pub role: String,
    /// The ServiceAccount whose token is sent to Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// Audiences of the ServiceAccount's token. Required with it: a token without one would be valid at the apiserver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Lifetime of the ServiceAccount token that is sent to Vault. Default and minimum `10m`.
    #[serde(default, rename = "tokenTTL", skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<GoDuration>,
    /// The Secret that holds the JWT, made by someone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// Log in with a TLS client certificate. See Vault's `POST auth/cert/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertMethod {
    /// Role of the auth method. Without it Vault tries all that take the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub role: Option<String>,
    /// The Secret that holds certificate and key, as `tls.crt` and `tls.key`.
    pub secret_ref: SecretRef,
}

/// Log in with a user name and a password. See Vault's `POST auth/userpass/login/:username` and
/// `POST auth/ldap/login/:username`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordMethod {
    /// The user name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^/]+$"))]
    pub username: String,
    /// The Secret that holds the password.
    pub password_ref: SecretKeyRef,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A method that is missing in the table would be allowed beside another one, and read other namespaces.
    #[test]
    fn the_rules_know_every_method_and_every_reference() {
        let schema = schemars::generate::SchemaSettings::openapi3()
            .into_generator()
            .into_root_schema_for::<LoginMethods>();
        let properties =
            |value: &Value| value["properties"].as_object().cloned().unwrap_or_default();
        let methods = properties(schema.as_value());
        assert_eq!(methods.len(), METHODS.len());
        for row in METHODS {
            let names_an_object = |field: &Value| {
                let found = properties(field);
                found.contains_key("name") && found.contains_key("namespace")
            };
            let mut found: Vec<_> = properties(&methods[row.field])
                .into_iter()
                .filter(|(_, field)| names_an_object(field))
                .map(|(name, _)| name)
                .collect();
            found.sort();
            let mut listed = row.references.to_vec();
            listed.sort_unstable();
            assert_eq!(found, listed, "{}", row.field);
        }
    }
}
