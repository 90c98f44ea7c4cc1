// Vercel's AI SDK, which checks every answer against a schema of its own; prints what it saw as JSON.
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const anthropic = createAnthropic({ baseURL: `${process.env.GATEWAY}/v1`, apiKey: "any" });
const model = anthropic("claude-sonnet-5");
const types = (steps) => steps.map((step) => step.content.map((part) => part.type));
const loop = {
  model,
  maxRetries: 0,
  tools: {
    get_weather: tool({
      description: "Weather of a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async () => "22 degrees",
    }),
  },
  stopWhen: stepCountIs(3),
  prompt: "Use the tool get_weather.",
  providerOptions: { anthropic: { thinking: { type: "adaptive" } } },
};
const whole = await generateText(loop);
const stream = streamText(loop);
await stream.consumeStream({ onError: (error) => { throw error; } });
const object = await generateObject({ model, maxRetries: 0, schema: z.object({ name: z.string() }), prompt: "Paris" });

async function asked(prompt, tools) {
  const first = await generateText({ model, maxRetries: 0, tools, prompt });
  const messages = [
    { role: "user", content: prompt },
    ...first.response.messages,
    { role: "user", content: "hello" },
  ];
  const second = await generateText({ model, maxRetries: 0, messages });
  return { types: first.content.map((part) => part.type), goesOn: second.text.includes("hello") };
}

console.log(JSON.stringify({
  whole: types(whole.steps),
  streamed: types(await stream.steps),
  texts: [whole.text, await stream.text],
  object: object.object,
  searched: await asked("search for otters", { web_search: anthropic.tools.webSearch_20250305({}) }),
  fetched: await asked("fetch https://example.com/a", { web_fetch: anthropic.tools.webFetch_20250910({}) }),
  computed: await asked("compute 2+3", { code_execution: anthropic.tools.codeExecution_20250522({}) }),
}));
