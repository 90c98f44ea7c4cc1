// A streamed tool loop with the official TypeScript SDK; prints what it saw as JSON.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.GATEWAY, apiKey: "any", maxRetries: 0 });
const options = {
  model: "claude-sonnet-5",
  max_tokens: 4000,
  thinking: { type: "enabled", budget_tokens: 2000 },
  tools: [
    {
      name: "get_weather",
      description: "Weather of a city",
      input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  ],
};
const messages = [{ role: "user", content: "Use the tool get_weather." }];
const seen = [];
for (let turn = 0; turn < 3; turn++) {
  const message = await client.messages.stream({ ...options, messages }).finalMessage();
  seen.push({
    stop: message.stop_reason,
    types: message.content.map((block) => block.type),
    output: message.usage.output_tokens > 0,
  });
  const calls = message.content.filter((block) => block.type === "tool_use");
  if (!calls.length) break;
  messages.push({ role: "assistant", content: message.content });
  messages.push({
    role: "user",
    content: calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "22 degrees" })),
  });
}
const counted = await client.messages.countTokens({ model: options.model, messages });
const models = [];
for await (const model of client.models.list({ limit: 3 })) models.push(model.id);
let refused;
try {
  await client.messages.create({ ...options, messages: [], max_tokens: 4000 });
} catch (error) {
  refused = { status: error.status, type: error.type, requestID: Boolean(error.requestID) };
}
console.log(JSON.stringify({ seen, counted: counted.input_tokens > 0, unique: new Set(models).size === models.length, refused }));
