// A server on the TypeScript SDK whose calls are cancelled, as tests/servers/cancelled.py is on the Python SDK.

import { existsSync, writeFileSync } from "node:fs";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { CallToolRequestSchema, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const server = new Server({ name: "cancelled", version: "1" }, { capabilities: { tools: {} } });
const tools = {
  waits: (folder, signal) => new Promise((resolve, reject) => {
    writeFileSync(`${folder}/begun`, "");
    signal.addEventListener("abort", () => {
      writeFileSync(`${folder}/over`, "");
      reject(new Error("cancelled"));
    });
  }),
  ignores: async (folder) => {
    writeFileSync(`${folder}/begun`, "");
    while (!existsSync(`${folder}/go`)) await new Promise((resolve) => setTimeout(resolve, 10));
    writeFileSync(`${folder}/over`, "");
    return { content: [{ type: "text", text: "done" }] };
  },
};
server.setRequestHandler(ListToolsRequestSchema, () => ({
  tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: "object" } })),
}));
server.setRequestHandler(CallToolRequestSchema, ({ params }, { signal }) =>
  tools[params.name](params.arguments.folder, signal),
);
await server.connect(new StdioServerTransport());
