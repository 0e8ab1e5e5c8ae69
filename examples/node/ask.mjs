// A caller in Node, over HTTP/2, without packages: a client certificate, and one header.
//
// FLIGHT_GATEWAY is the gateway; FLIGHT_CERT, FLIGHT_KEY and FLIGHT_CA are files: who we are, and whom we believe.
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const { FLIGHT_GATEWAY = "https://127.0.0.1:8443", FLIGHT_CA = "certs/ca.pem" } = process.env;
const { FLIGHT_CERT = "certs/caller.pem", FLIGHT_KEY = "certs/caller-key.pem" } = process.env;
const text = process.argv.slice(2).join(" ") || "work that is handed on";

// One connection carries many requests at a time: keep it.
const gateway = connect(FLIGHT_GATEWAY, {
  ca: readFileSync(FLIGHT_CA),
  cert: readFileSync(FLIGHT_CERT),
  key: readFileSync(FLIGHT_KEY),
});

function ask(path, headers, body) {
  return new Promise((resolve, reject) => {
    const request = gateway.request({ ":method": "POST", ":path": path, "content-type": "application/json", ...headers });
    let head;
    let data = "";
    request.setEncoding("utf8");
    request.on("response", (fields) => (head = fields));
    request.on("data", (piece) => (data += piece));
    request.on("end", () => resolve({ status: head[":status"], agent: head["flight-agent"], body: JSON.parse(data) }));
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

gateway.on("error", (error) => {
  console.error(String(error));
  process.exit(1);
});
const headers = { "flight-capability": "text.count", "flight-conversation": '"node-1"' };
const { status, agent, body } = await ask("/count", headers, { text });
if (status === 200) {
  console.log(`${body.words} words, counted by ${agent}`);
} else {
  // application/problem+json: its detail says what to change.
  console.error(`refused: ${body.title}: ${body.detail}`);
  process.exitCode = 1;
}
gateway.close();
