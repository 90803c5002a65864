// The Node clients of the matrix: one call by each.
//
// The rule: one function a client, by the name that clients.py gives it, which imports it inside. Run as a module in
// the folder of the packages, .node-sdks: NAME URL KEY [TEMPERATURE].

const QUESTION = "What is in the box?";
const messages = [{ role: "user", content: QUESTION }];
const GPT = "gpt-4o", CLAUDE = "claude-sonnet-4-6";

async function generate(model, how) {
  const { generateText } = await import("ai");
  await generateText({ model, prompt: QUESTION, maxRetries: 0, ...how });
}

async function vercelOpenAI(url, apiKey) {
  const { createOpenAI } = await import("@ai-sdk/openai");
  return createOpenAI({ baseURL: `${url}/openai/v1`, apiKey });
}

const CLIENTS = {
  "openai (npm)": async (url, apiKey, how) => {
    const { OpenAI } = await import("openai");
    const client = new OpenAI({ baseURL: `${url}/openai/v1`, apiKey, maxRetries: 0 });
    await client.chat.completions.create({ model: GPT, messages, ...how });
  },
  "@anthropic-ai/sdk": async (url, apiKey, how) => {
    const { Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: `${url}/anthropic`, apiKey, maxRetries: 0 });
    await client.messages.create({ model: CLAUDE, max_tokens: 64, messages, ...how });
  },
  "@ai-sdk/openai (chat)": async (url, apiKey, how) =>
    generate((await vercelOpenAI(url, apiKey)).chat(GPT), how),
  "@ai-sdk/openai (store: false)": async (url, apiKey, how) =>
    generate((await vercelOpenAI(url, apiKey))(GPT), { ...how, providerOptions: { openai: { store: false } } }),
  "@ai-sdk/openai": async (url, apiKey, how) =>
    generate((await vercelOpenAI(url, apiKey))(GPT), how),
  "@ai-sdk/anthropic": async (url, apiKey, how) => {
    const { createAnthropic } = await import("@ai-sdk/anthropic");
    await generate(createAnthropic({ baseURL: `${url}/anthropic/v1`, apiKey })(CLAUDE), how);
  },
};

const [name, url, key, temperature] = process.argv.slice(1);
try {
  await CLIENTS[name](url, key, temperature === undefined ? {} : { temperature: Number(temperature) });
} catch (error) {
  // One line: it becomes the cell of the table that says what went wrong.
  console.error(String(error).replaceAll("\n", " "));
  process.exit(1);
}
