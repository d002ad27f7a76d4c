// An agent by the official TypeScript SDK: node agent.mjs VERSION HOW, with the addresses in the environment.
import { readFileSync } from 'node:fs';

const [version, how] = process.argv.slice(2);
const { WIKI_ISSUER, WIKI_SERVER, ACME_ISSUER, ACME_IDP, AGENT_KEY } = process.env;
const secret = (client) => `demo-${client}-0123456789abcdef0123456789abcdef`;

const v1 = async () => ({
  ...(await import('@modelcontextprotocol/sdk/client/index.js')),
  ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')),
  ...(await import('@modelcontextprotocol/sdk/client/auth-extensions.js')),
});
const sdk = version === '1' ? await v1() : await import('@modelcontextprotocol/client');

// The first half is an exchange at Acme's broker, which the SDK finds by its metadata.
async function assertion(context) {
  const login = await fetch(`${ACME_IDP}/login?sub=ann&client_id=agent-desk`);
  const granted = await sdk.discoverAndRequestJwtAuthGrant({
    idpUrl: ACME_ISSUER,
    audience: context.authorizationServerUrl,
    resource: context.resourceUrl,
    idToken: (await login.json()).id_token,
    clientId: 'agent-desk',
    clientSecret: secret('agent-desk'),
    scope: 'pages.read',
  });
  return granted.jwtAuthGrant;
}

const common = { scope: 'pages.read', expectedIssuer: WIKI_ISSUER };
const providers = {
  secret: () =>
    new sdk.ClientCredentialsProvider({
      clientId: 'agent-nightly',
      clientSecret: secret('agent-nightly'),
      ...common,
    }),
  key: () =>
    new sdk.PrivateKeyJwtProvider({
      clientId: 'agent-nightly',
      privateKey: readFileSync(AGENT_KEY, 'utf8'),
      algorithm: 'ES256',
      ...common,
    }),
  enterprise: () =>
    new sdk.CrossAppAccessProvider({
      clientId: 'desk-at-wiki',
      clientSecret: secret('desk-at-wiki'),
      assertion,
      ...common,
    }),
};

const client = new sdk.Client({ name: 'interop', version: '1' });
await client.connect(
  new sdk.StreamableHTTPClientTransport(new URL(WIKI_SERVER), { authProvider: providers[how]() }),
);
const result = await client.callTool({ name: 'whoami', arguments: {} });
console.log(result.content[0].text);
await client.close();
process.exit(0);
