// @jmondi/oauth2-server: client credentials and its own token exchange, ES256 by jose in its JWT service.
// Its repositories are maps in memory. The exchange asks no policy, keeps no chain of actors and no record.
import { AuthorizationServer, DateInterval } from "@jmondi/oauth2-server";
import { SignJWT, createLocalJWKSet, decodeJwt, jwtVerify } from "jose";
import crypto from "node:crypto";
import { TOKEN_EXCHANGE, given, issuer, serve, signingKey } from "./given.mjs";

const idpKeys = createLocalJWKSet({ keys: [given.idp_jwk] });
const scope = { name: given.scope };
const client = {
  id: given.secret_client,
  name: "the client of the measurement",
  secret: given.secret,
  redirectUris: [],
  allowedGrants: ["client_credentials", TOKEN_EXCHANGE],
  scopes: [scope],
};

const clients = {
  getByIdentifier: async (id) => (id === client.id ? client : undefined),
  isClientValid: async (grant, known, secret) =>
    known.secret === secret && known.allowedGrants.includes(grant),
};
const tokens = {
  issueToken: async (known, scopes, user) => ({
    accessToken: crypto.randomUUID(),
    accessTokenExpiresAt: new Date(Date.now() + 300_000),
    client: known,
    scopes,
    user,
  }),
  persist: async () => {},
  revoke: async () => {},
  issueRefreshToken: async (token) => token,
  isRefreshTokenRevoked: async () => false,
  getByRefreshToken: async () => undefined,
};
const scopes = {
  getAllByIdentifiers: async (names) => names.filter((name) => name === scope.name).map(() => scope),
  finalize: async (found) => found,
};
const jwts = {
  sign: (claims) =>
    new SignJWT({ ...claims }).setProtectedHeader({ alg: "ES256", kid: "peer", typ: "at+jwt" }).sign(signingKey),
  verify: async () => ({}),
  decode: decodeJwt,
};

const server = new AuthorizationServer(clients, tokens, scopes, jwts, { issuer });
const lifetime = new DateInterval("5m");
server.enableGrantType("client_credentials", lifetime);
server.enableGrantType(
  {
    grant: TOKEN_EXCHANGE,
    processTokenExchange: async ({ subjectToken }) => {
      const rules = { algorithms: ["ES256"], issuer: given.idp, audience: given.server_resource };
      const { payload } = await jwtVerify(subjectToken, idpKeys, rules);
      return { id: payload.sub };
    },
  },
  lifetime,
);
serve((headers, body) => server.respondToAccessTokenRequest({ headers, query: {}, body }));
