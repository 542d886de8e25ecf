// Verifies requests with the standardwebhooks package of npm.
//
// usage: NODE_PATH=target/node/node_modules node verify.js SECRET < requests
//
// One request a line: {"headers": {...}, "body": "..."}. The first that does not verify ends it with an error.

const { Webhook } = require("standardwebhooks");

const webhook = new Webhook(process.argv[2]);
const lines = require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean);
for (const line of lines) {
  const request = JSON.parse(line);
  webhook.verify(request.body, request.headers);
}
console.log(`${lines.length} verified`);
