#!/bin/sh
# Prepares Vault for the quickstart. Run it where the vault command is logged in with the rights of an
# administrator. It may be run again: that puts the configuration of auth/kubernetes, the policy "shop" and the two
# secrets back to what is written here, and drops what was added to the policy.
#
# With Vault in the cluster, nothing else is needed. With Vault outside, set
#   KUBERNETES_HOST      address of the apiserver, as Vault reaches it
#   KUBERNETES_CA_FILE   file with the certificate authority of the apiserver
#   REVIEWER_TOKEN       token of a ServiceAccount that is bound to the ClusterRole system:auth-delegator
set -eu

# 1. Vault asks the apiserver whether a ServiceAccount token is good.
if ! vault read sys/auth/kubernetes >/dev/null 2>&1; then
    vault auth enable kubernetes
fi
if [ -n "${KUBERNETES_HOST:-}" ]; then
    vault write auth/kubernetes/config \
        kubernetes_host="$KUBERNETES_HOST" \
        kubernetes_ca_cert=@"$KUBERNETES_CA_FILE" \
        token_reviewer_jwt="$REVIEWER_TOKEN" \
        disable_local_ca_jwt=true
else
    vault write auth/kubernetes/config kubernetes_host=https://kubernetes.default.svc
fi

# 2. Pods of the namespace shop may read what is below secret/shop/, and nothing else.
if ! vault read sys/mounts/secret >/dev/null 2>&1; then
    vault secrets enable -path=secret -version=2 kv
    # A new version 2 store sets itself up for a moment.
    until vault read secret/config >/dev/null 2>&1; do sleep 1; done
fi
vault policy write shop - <<'POLICY'
path "secret/data/shop/*" {
  capabilities = ["read"]
}
POLICY
vault write auth/kubernetes/role/lockstep \
    bound_service_account_names=default \
    bound_service_account_namespaces=shop \
    audience=vault \
    token_policies=shop \
    token_ttl=1h

# 3. Two secrets.
vault kv put secret/shop/database DB_USER=checkout DB_PASSWORD=first
vault kv put secret/shop/payment api-key=first
