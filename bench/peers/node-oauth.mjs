// @node-oauth/oauth2-server: client credentials, ES256 by jose in its model. Its model is in memory, and
// keeps nothing of what it issued.
import OAuth2Server from "@node-oauth/oauth2-server";
import { SignJWT } from "jose";
import crypto from "node:crypto";
import { given, issuer, serve, signingKey } from "./given.mjs";

const client = { id: given.secret_client, grants: ["client_credentials"] };
const model = {
  getClient: async (id, secret) =>
    id === client.id && (secret === null || secret === given.secret) ? client : false,
  getUserFromClient: async ({ id }) => ({ id }),
  validateScope: async (user, known, scope) => scope ?? [],
  generateAccessToken: async ({ id }, user, scope) =>
    new SignJWT({ client_id: id, scope: (scope ?? []).join(" ") })
      .setProtectedHeader({ alg: "ES256", kid: "peer", typ: "at+jwt" })
      .setIssuer(issuer)
      .setSubject(id)
      .setAudience(given.api)
      .setIssuedAt()
      .setExpirationTime("5m")
      .setJti(crypto.randomUUID())
      .sign(signingKey),
  saveToken: async (token, known, user) => ({ ...token, client: known, user }),
};

const server = new OAuth2Server({ model, accessTokenLifetime: 300 });
serve(async (headers, body) => {
  const request = new OAuth2Server.Request({ method: "POST", headers, query: {}, body });
  const response = new OAuth2Server.Response({});
  await server.token(request, response);
  return response;
});
