// An MCP host on the TypeScript SDK: `node host.mjs COMMAND [ARGUMENT …]` prints what it saw as a line of JSON,
// as tests/gateway/sdk_client.py does.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: "host", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { name: "Ann" } }));
const transport = new StdioClientTransport({ command, args, env: process.env });
await client.connect(transport);

const seen = { version: transport.protocolVersion ?? "2025-11-25", server: client.getServerVersion().name };
seen.tools = (await client.listTools()).tools.map((tool) => tool.name).sort();
if (seen.tools.includes("add")) {
  seen.sum = (await client.callTool({ name: "add", arguments: { a: 2, b: 3 } })).content[0].text;
  seen.progress = []; // the SDK drops one that comes in the same turn as the answer
  await client.callTool({ name: "slow", arguments: { steps: 3, delay_s: 0.2 } }, undefined, {
    onprogress: ({ progress }) => seen.progress.push(progress),
  });
  seen.is_error = (await client.callTool({ name: "broken", arguments: {} })).isError;
  seen.note = (await client.readResource({ uri: "note://hello" })).contents[0].text;
  seen.prompt = (await client.getPrompt({ name: "greet", arguments: { name: "Bo" } })).messages[0].content.text;
  seen.unknown = await client.callTool({ name: "no-such-tool", arguments: {} }).then(JSON.stringify, String);
}
if (seen.tools.includes("test_input_required_result_elicitation")) {
  const name = "test_input_required_result_elicitation";
  seen.asked = (await client.callTool({ name, arguments: {} })).content[0].text;
}
console.log(JSON.stringify(seen));
await client.close();
