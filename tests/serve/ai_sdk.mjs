// node ai_sdk.mjs BASE_URL: prints as JSON what the AI SDK makes of a server whose model repeats what it is told.
import { generateText, jsonSchema, streamText, tool } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const provider = createOpenAICompatible({ name: "edgerazor", baseURL: process.argv[2], includeUsage: true });
const model = provider("parrot");
const found = {};

const whole = await generateText({ model, prompt: "naïve 🙂 text", temperature: 0.5, maxOutputTokens: 100 });
found.whole = [whole.text, whole.finishReason, whole.usage.outputTokens > 0];

const stream = streamText({ model, messages: [{ role: "user", content: "<think>\nWhy?\n</think>\n\nSo." }] });
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
found.streamed = [pieces.join(""), await stream.reasoningText, await stream.finishReason, (await stream.usage).inputTokens > 0];

const find = tool({ inputSchema: jsonSchema({ type: "object", properties: { place: { type: "string" } } }) });
const call = '<tool_call>\n{"name": "find", "arguments": {"place": "Rome"}}\n</tool_call>';
for (const [name, run] of [["called", generateText], ["calledInStream", streamText]]) {
  const result = await run({ model, prompt: call, tools: { find } });
  found[name] = (await result.toolCalls).map(({ toolName, input }) => [toolName, input]);
}

try {
  await generateText({ model: provider("none"), prompt: "x", maxRetries: 0 });
} catch (error) {
  found.error = [error.statusCode, error.message];
}
console.log(JSON.stringify(found));
