// An agent in Node that counts words, without packages.  It listens with mTLS, and lets nobody in but the gateway.
//
// FLIGHT_LISTEN is its address; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const { FLIGHT_LISTEN = "127.0.0.1:7202", FLIGHT_CA = "certs/ca.pem" } = process.env;
const { FLIGHT_CERT = "certs/counter.pem", FLIGHT_KEY = "certs/counter-key.pem" } = process.env;
const GATEWAY = "URI:spiffe://mesh.local/ns/phoenixflight/sa/gateway";

function answer(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body) + "\n");
}

async function serve(request, response) {
  // Whoever has a certificate of the mesh and is not the gateway would come past the policies.
  const names = request.socket.getPeerCertificate().subjectaltname ?? "";
  if (!names.split(", ").includes(GATEWAY)) return answer(response, 403, { title: "Only the gateway may ask this agent" });
  if (request.method !== "POST" || request.url !== "/count") return answer(response, 404, { title: "POST /count" });
  let body = "";
  for await (const piece of request.setEncoding("utf8")) body += piece;
  const words = JSON.parse(body).text.split(/\s+/).filter(Boolean).length;
  // The gateway vouches for flight-from: it is the caller's SPIFFE id, by its certificate.
  answer(response, 200, { words, for: request.headers["flight-from"].replaceAll('"', "") });
}

const server = createServer(
  {
    cert: readFileSync(FLIGHT_CERT),
    key: readFileSync(FLIGHT_KEY),
    ca: readFileSync(FLIGHT_CA),
    requestCert: true,
    rejectUnauthorized: true,
  },
  (request, response) => serve(request, response).catch((error) => answer(response, 400, { title: String(error) })),
);
const [host, port] = FLIGHT_LISTEN.split(":");
server.listen(Number(port), host);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
