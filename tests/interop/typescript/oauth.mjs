// The grants by a general OAuth library: node oauth.mjs LIBRARY, with the addresses in the environment.
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as oauth from 'oauth4webapi';
import * as oidc from 'openid-client';

const [library] = process.argv.slice(2);
const { WIKI_ISSUER, WIKI_SERVER, WIKI_INDEX, ACME_ISSUER, ACME_IDP, AGENT_KEY } = process.env;
const secret = (client) => `demo-${client}-0123456789abcdef0123456789abcdef`;
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TYPE = 'urn:ietf:params:oauth:token-type:';

// Each library is an agent of one issuer: what asks there for tokens, about tokens, and withdraws them.
const libraries = {
  async 'openid-client'(issuer, id, how, key) {
    const authentication = {
      basic: () => oidc.ClientSecretBasic(secret(id)),
      post: () => oidc.ClientSecretPost(secret(id)),
      key: () => oidc.PrivateKeyJwt(key),
    }[how]();
    const config = await oidc.discovery(new URL(issuer), id, {}, authentication, {
      algorithm: 'oauth2',
      execute: [oidc.allowInsecureRequests],
    });
    return {
      machine: (parameters, pair) =>
        oidc.clientCredentialsGrant(config, parameters, pair && { DPoP: oidc.getDPoPHandle(config, pair) }),
      grant: (type, parameters) => oidc.genericGrantRequest(config, type, parameters),
      introspect: (token) => oidc.tokenIntrospection(config, token),
      revoke: (token) => oidc.tokenRevocation(config, token),
    };
  },
  async oauth4webapi(issuer, id, how, key) {
    const insecure = { [oauth.allowInsecureRequests]: true };
    const found = await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...insecure });
    const server = await oauth.processDiscoveryResponse(new URL(issuer), found);
    const client = { client_id: id };
    const authentication = {
      basic: () => oauth.ClientSecretBasic(secret(id)),
      post: () => oauth.ClientSecretPost(secret(id)),
      key: () => oauth.PrivateKeyJwt(key),
    }[how]();
    const common = [server, client, authentication];
    return {
      async machine(parameters, pair) {
        const options = { ...insecure, ...(pair && { DPoP: oauth.DPoP(client, pair) }) };
        const answer = await oauth.clientCredentialsGrantRequest(
          ...common, new URLSearchParams(parameters), options);
        return oauth.processClientCredentialsResponse(server, client, answer);
      },
      async grant(type, parameters) {
        const answer = await oauth.genericTokenEndpointRequest(
          ...common, type, new URLSearchParams(parameters), insecure);
        return oauth.processGenericTokenEndpointResponse(server, client, answer, {
          recognizedTokenTypes: { n_a: () => {} },
        });
      },
      async introspect(token) {
        const answer = await oauth.introspectionRequest(...common, token, insecure);
        return oauth.processIntrospectionResponse(server, client, answer);
      },
      async revoke(token) {
        await oauth.processRevocationResponse(
          await oauth.revocationRequest(...common, token, insecure));
      },
    };
  },
};
const agent = libraries[library];

// What a resource server reads of a token, verified by the keys that the metadata name (RFC 9068, RFC 9449).
const insecure = { [oauth.allowInsecureRequests]: true };
const wiki = await oauth.processDiscoveryResponse(
  new URL(WIKI_ISSUER),
  await oauth.discoveryRequest(new URL(WIKI_ISSUER), { algorithm: 'oauth2', ...insecure }));
async function read(token, resource, headers = { authorization: `Bearer ${token}` }) {
  const claims = await oauth.validateJwtAccessToken(
    wiki, new Request(resource, { headers }), resource, insecure);
  return `${claims.sub}${claims.act ? ` through ${claims.act.sub}` : ''}, may ${claims.scope}`;
}
async function refusal(attempt) {
  try {
    await attempt();
    return 'not refused';
  } catch (error) {
    return `${error.status} ${error.error}`;
  }
}

const pem = createPrivateKey(readFileSync(AGENT_KEY, 'utf8')).export({ type: 'pkcs8', format: 'der' });
const key = await crypto.subtle.importKey('pkcs8', pem, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
const wanted = { resource: WIKI_SERVER, scope: 'pages.read' };
for (const how of ['basic', 'post', 'key']) {
  const granted = await (await agent(WIKI_ISSUER, 'agent-nightly', how, key)).machine(wanted);
  console.log(`${how}: ${await read(granted.access_token, WIKI_SERVER)}`);
}

const pair = await oauth.generateKeyPair('ES256', { extractable: true });
const nightly = await agent(WIKI_ISSUER, 'agent-nightly', 'basic');
const bound = await nightly.machine(wanted, pair);
let headers;
await oauth.protectedResourceRequest(
  bound.access_token, 'GET', new URL(WIKI_SERVER), undefined, undefined, {
    DPoP: oauth.DPoP({}, pair),
    // What would be sent is kept for the resource server's side below.
    [oauth.customFetch]: async (_, sent) => {
      headers = sent.headers;
      return new Response();
    },
    ...insecure,
  });
console.log(`bound: ${bound.token_type}, ${await read(bound.access_token, WIKI_SERVER, headers)}`);

const login = await (await fetch(`${ACME_IDP}/login?sub=ann&client_id=agent-desk`)).json();
const assertion = await (await agent(ACME_ISSUER, 'agent-desk', 'post')).grant(EXCHANGE, {
  requested_token_type: `${TYPE}id-jag`,
  subject_token: login.id_token,
  subject_token_type: `${TYPE}id_token`,
  audience: WIKI_ISSUER,
  resource: WIKI_SERVER,
  scope: 'pages.read',
});
console.log(`assertion: ${assertion.token_type}, ${assertion.issued_token_type}`);
const desk = await agent(WIKI_ISSUER, 'desk-at-wiki', 'basic');
const redeemed = { assertion: assertion.access_token, scope: 'pages.read' };
const ann = (await desk.grant(JWT_BEARER, redeemed)).access_token;
console.log(`redeemed: ${await read(ann, WIKI_SERVER)}`);
console.log(`again: ${await refusal(() => desk.grant(JWT_BEARER, redeemed))}`);

const server = await agent(WIKI_ISSUER, 'mcp-wiki', 'basic');
const onward = {
  subject_token: ann,
  subject_token_type: `${TYPE}access_token`,
  resource: WIKI_INDEX,
  scope: 'index.search',
};
const exchanged = await server.grant(EXCHANGE, onward);
console.log(`exchanged: ${await read(exchanged.access_token, WIKI_INDEX)}`);
console.log(`too much: ${await refusal(() => server.grant(EXCHANGE, { ...onward, scope: 'index.erase' }))}`);
const known = await server.introspect(ann);
console.log(`introspected: ${known.active} ${known.sub}`);
await desk.revoke(ann);
console.log(`revoked: ${JSON.stringify(await server.introspect(ann))}`);
console.log(`onward: ${await refusal(() => server.grant(EXCHANGE, onward))}`);
process.exit(0);
