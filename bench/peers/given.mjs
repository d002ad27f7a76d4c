// What the measurement gives each of the Node peers: one JSON file, named by GIVEN.
import fs from "node:fs";
import crypto from "node:crypto";
import http from "node:http";

export const given = JSON.parse(fs.readFileSync(process.env.GIVEN, "utf8"));
export const issuer = `http://127.0.0.1:${given.port}`;
export const signingKey = crypto.createPrivateKey({ key: given.signing_jwk, format: "jwk" });
export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";

// Serves `answer(headers, form)` at every path: the least that a framework-free server needs.
export function serve(answer) {
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", async () => {
      const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()));
      const { status, headers, body } = await answer(request.headers, form).catch((error) => ({
        status: 400,
        headers: {},
        body: { error: String(error.message) },
      }));
      const text = JSON.stringify(body);
      response.writeHead(status, {
        ...headers,
        "content-type": "application/json",
        "content-length": Buffer.byteLength(text),
      });
      response.end(text);
    });
  });
  server.listen(given.port, "127.0.0.1");
}
