// oidc-provider: client credentials, and token exchange as a custom grant, which it has none of by itself.
// Tokens are JWTs signed with ES256; everything it remembers is in its own memory adapter.
import { Provider, errors } from "oidc-provider";
import { createLocalJWKSet, jwtVerify } from "jose";
import { TOKEN_EXCHANGE, given, issuer } from "./given.mjs";

const idpKeys = createLocalJWKSet({ keys: [given.idp_jwk] });
const resource = given.api;
const scope = given.scope;

const common = {
  grant_types: ["client_credentials", TOKEN_EXCHANGE],
  redirect_uris: [],
  response_types: [],
  scope,
  id_token_signed_response_alg: "ES256",
};
const clients = [
  {
    ...common,
    client_id: given.secret_client,
    client_secret: given.secret,
    token_endpoint_auth_method: "client_secret_basic",
  },
  {
    ...common,
    client_id: given.key_client,
    token_endpoint_auth_method: "private_key_jwt",
    token_endpoint_auth_signing_alg: "ES256",
    jwks: { keys: [given.client_jwk] },
  },
];
const resourceServer = {
  scope,
  audience: resource,
  accessTokenTTL: 300,
  accessTokenFormat: "jwt",
  jwt: { sign: { alg: "ES256" } },
};

const provider = new Provider(issuer, {
  clients,
  clientAuthMethods: ["client_secret_basic", "private_key_jwt"],
  jwks: { keys: [given.signing_jwk] },
  scopes: [scope],
  cookies: { keys: ["only for the measurement"] },
  extraTokenClaims: (ctx) => (ctx.oidc?.actor ? { act: ctx.oidc.actor } : undefined),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      getResourceServerInfo: () => resourceServer,
      useGrantedResource: () => true,
    },
  },
});

// The custom grant does by hand what the broker's does: verify the subject token, keep its chain of actors
// and put the client before it. It asks no policy and keeps no record.
const parameters = ["subject_token", "subject_token_type", "resource", "scope"];
provider.registerGrantType(
  TOKEN_EXCHANGE,
  async (ctx) => {
    const { params, client } = ctx.oidc;
    let subject;
    try {
      subject = (
        await jwtVerify(params.subject_token, idpKeys, {
          algorithms: ["ES256"],
          issuer: given.idp,
          audience: given.server_resource,
          requiredClaims: ["exp", "sub"],
        })
      ).payload;
    } catch (error) {
      throw new errors.InvalidGrant(`subject_token: ${error.code}`);
    }
    ctx.oidc.actor = { sub: client.clientId, ...(subject.act ? { act: subject.act } : {}) };
    const token = new provider.AccessToken({
      client,
      accountId: subject.sub,
      expiresIn: 300,
      gty: "token_exchange",
      scope: params.scope,
    });
    token.resourceServer = new provider.ResourceServer(resource, resourceServer);
    ctx.oidc.entity("AccessToken", token);
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "Bearer",
      expires_in: token.expiration,
      scope: token.scope,
    };
  },
  parameters,
  ["resource"],
);
provider.listen(given.port, "127.0.0.1");
