// node ai_sdk_engines.mjs BASE_URL PROMPT MODEL...: prints as JSON what each model answers, whole and as a stream.
import { generateText, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const [baseURL, prompt, ...names] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "edgerazor", baseURL });
const found = {};
for (const name of names) {
  const asked = { model: provider(name), prompt, temperature: 0, maxOutputTokens: 12 };
  const whole = await generateText(asked);
  const pieces = [];
  for await (const piece of streamText(asked).textStream) pieces.push(piece);
  found[name] = [whole.text, pieces.join("")];
}
console.log(JSON.stringify(found));
