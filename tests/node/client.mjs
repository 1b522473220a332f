// A client on either line of the TypeScript SDK: does what every client of these tests does, and prints it as JSON.
//
//     node client.mjs URL TOKEN LINE MODE
//
// LINE is 1 or 2; MODE, of line 2, is `legacy`, `auto` or a version.

const [url, token, line, mode] = process.argv.slice(2);
const isOld = line === '1';
const { Client } = await import(isOld ? '@modelcontextprotocol/sdk/client/index.js' : '@modelcontextprotocol/client');
const { StreamableHTTPClientTransport } = await import(
    isOld ? '@modelcontextprotocol/sdk/client/streamableHttp.js' : '@modelcontextprotocol/client'
);

function transport(server) {
    return new StreamableHTTPClientTransport(new URL(`${url}/${server}`), {
        requestInit: { headers: { Authorization: `Bearer ${token}` } }
    });
}

function client() {
    const pin = /^\d/.test(mode ?? '') ? { pin: mode } : mode;
    const made = new Client(
        { name: 'typescript', version: '1.0.0' },
        { capabilities: { elicitation: {} }, ...(isOld ? {} : { versionNegotiation: { mode: pin } }) }
    );
    return made;
}

async function answering(made) {
    const answer = async () => ({ action: 'accept', content: { size: 'large' } });
    if (isOld) {
        const { ElicitRequestSchema } = await import('@modelcontextprotocol/sdk/types.js');
        made.setRequestHandler(ElicitRequestSchema, answer);
    } else {
        made.setRequestHandler('elicitation/create', answer);
    }
    return made;
}

function call(made, name, given, options) {
    return isOld
        ? made.callTool({ name, arguments: given }, undefined, options)
        : made.callTool({ name, arguments: given }, options);
}

const plain = client();
const over = transport('plain');
await plain.connect(over);
const { tools } = await plain.listTools();
const sum = await call(plain, 'add', { a: 2, b: 3 });
const steps = [];
await call(plain, 'slow', { steps: 3, delay_s: 0.05 }, { onprogress: told => steps.push(told.progress) });
const failed = await call(plain, 'broken', {});
const note = await plain.readResource({ uri: 'note://hello' });
const prompt = await plain.getPrompt({ name: 'greet', arguments: { name: 'Ann' } });
const version = isOld ? over.protocolVersion : plain.getNegotiatedProtocolVersion();
if (over.sessionId) await over.terminateSession();
await plain.close();

const asking = await answering(client());
await asking.connect(transport('asking'));
const order = await call(asking, 'order', { what: 'tea' });
await asking.close();

console.log(
    JSON.stringify({
        version,
        tools: tools.map(tool => tool.name).sort(),
        sum: sum.content[0].text,
        progress: steps,
        failed: failed.isError,
        note: note.contents[0].text,
        prompt: prompt.messages[0].content.text,
        order: order.content[0].text
    })
);
