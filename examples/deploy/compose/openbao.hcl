# OpenBao for one machine. It unseals itself by a key that lies beside it, so whoever has this machine has the keys:
# that is for trying out. In production let a key service or people unseal it.
storage "raft" {
  path    = "/data"
  node_id = "openbao"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/made/tls.crt"
  tls_key_file  = "/made/tls.key"
}

api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

seal "static" {
  current_key_id = "1"
  current_key    = "file:///made/unseal.key"
}

audit "file" "to-stdout" {
  options = {
    file_path = "stdout"
  }
}

# What follows happens once, at the very first start. No root token is left of it. It is the set-up of docs/vault.md.
initialize "keys" {
  request "transit" {
    operation = "update"
    path      = "sys/mounts/transit"
    data      = { type = "transit" }
  }
  request "kv" {
    operation = "update"
    path      = "sys/mounts/kv"
    data      = { type = "kv", options = { version = "2" } }
  }
  request "es256" {
    operation = "update"
    path      = "transit/keys/broker-es256"
    data      = { type = "ecdsa-p256" }
  }
  request "rs256" {
    operation = "update"
    path      = "transit/keys/broker-rs256"
    data      = { type = "rsa-2048" }
  }
  request "audit" {
    operation = "update"
    path      = "transit/keys/broker-audit"
    data      = { type = "ed25519" }
  }
}

initialize "access" {
  request "policy" {
    operation = "update"
    path      = "sys/policies/acl/broker"
    data = {
      policy = <<END
path "transit/keys/broker-es256" { capabilities = ["read"] }
path "transit/keys/broker-rs256" { capabilities = ["read"] }
path "transit/sign/broker-es256" {
  capabilities = ["update"]
  required_parameters = ["key_version"]
  allowed_parameters = { "batch_input" = [], "key_version" = [], "hash_algorithm" = ["sha2-256"],
                         "prehashed" = [], "marshaling_algorithm" = ["jws"] }
}
path "transit/sign/broker-rs256" {
  capabilities = ["update"]
  required_parameters = ["key_version"]
  allowed_parameters = { "batch_input" = [], "key_version" = [], "hash_algorithm" = ["sha2-256"],
                         "prehashed" = [], "signature_algorithm" = ["pkcs1v15"] }
}
path "transit/keys/broker-audit" { capabilities = ["read"] }
path "transit/sign/broker-audit" {
  capabilities = ["update"]
  required_parameters = ["key_version"]
  allowed_parameters = { "input" = [], "key_version" = [] }
}
path "kv/data/broker/keys/checkpoint/+" { capabilities = ["create", "read", "update"] }
path "kv/data/broker/keys/record" { capabilities = ["read"] }
path "kv/data/broker/keys/people/+" { capabilities = ["create", "read"] }
path "kv/metadata/broker/keys/people/" { capabilities = ["list"] }
path "auth/token/renew-self" { capabilities = ["update"] }
END
    }
  }
  request "rotator-policy" {
    operation = "update"
    path      = "sys/policies/acl/broker-rotator"
    data = {
      policy = <<END
path "transit/keys/broker-es256" { capabilities = ["read"] }
path "transit/keys/broker-rs256" { capabilities = ["read"] }
path "transit/keys/broker-es256/rotate" { capabilities = ["update"] }
path "transit/keys/broker-rs256/rotate" { capabilities = ["update"] }
path "transit/keys/broker-es256/config" {
  capabilities = ["update"]
  allowed_parameters = { "min_encryption_version" = [], "min_decryption_version" = [] }
}
path "transit/keys/broker-rs256/config" {
  capabilities = ["update"]
  allowed_parameters = { "min_encryption_version" = [], "min_decryption_version" = [] }
}
path "kv/data/broker/keys/record" { capabilities = ["create", "read", "update"] }
path "auth/token/renew-self" { capabilities = ["update"] }
END
    }
  }
  request "approle" {
    operation = "update"
    path      = "sys/auth/approle"
    data      = { type = "approle" }
  }
  request "role" {
    operation = "update"
    path      = "auth/approle/role/broker"
    data = {
      token_policies          = ["broker"]
      token_no_default_policy = true
      token_ttl               = "1h"
    }
  }
  request "role-id" {
    operation = "update"
    path      = "auth/approle/role/broker/role-id"
    data = {
      role_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/made/role-id"
      }
    }
  }
  request "secret-id" {
    operation = "update"
    path      = "auth/approle/role/broker/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/made/secret-id"
      }
    }
  }
  request "rotator-role" {
    operation = "update"
    path      = "auth/approle/role/broker-rotator"
    data = {
      token_policies          = ["broker-rotator"]
      token_no_default_policy = true
      token_ttl               = "1h"
    }
  }
  request "rotator-role-id" {
    operation = "update"
    path      = "auth/approle/role/broker-rotator/role-id"
    data = {
      role_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/made/rotator-role-id"
      }
    }
  }
  request "rotator-secret-id" {
    operation = "update"
    path      = "auth/approle/role/broker-rotator/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/made/rotator-secret-id"
      }
    }
  }
}
