// The server's interface: the list of models, and answers as they arrive.

import { apiKey } from "./store.js";

export class Fault extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The server does not answer.", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Fault(told?.error?.message ?? `The server answered ${response.status}.`, response.status);
}

export async function listModels() {
  return (await (await request("v1/models")).json()).data;
}

// Yields {reasoning, content, reason, tokens} as far as each chunk has them.
export async function* answer(model, messages, settings, signal) {
  const body = {
    model: model.id,
    temperature: settings.temperature,
    max_tokens: settings.maxTokens,
    stream: true,
    stream_options: { include_usage: true },
  };
  const path = model.chat ? "v1/chat/completions" : "v1/completions";
  if (model.chat) body.messages = messages;
  else body.prompt = messages.at(-1).content; // a model without a template goes on from a text
  const response = await request(path, body, signal);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Fault(chunk.error.message, 200);
    const choice = chunk.choices[0];
    yield {
      reasoning: choice?.delta?.reasoning_content ?? "",
      content: choice?.delta?.content ?? choice?.text ?? "",
      reason: choice?.finish_reason ?? null,
      tokens: chunk.usage?.completion_tokens ?? null,
    };
  }
  throw new Fault("The server stopped in the middle of the answer.", 0);
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) if (frame.startsWith("data: ")) yield frame.slice(6);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The server stopped in the middle of the answer.", 0);
  } finally {
    reader.cancel().catch(() => {});
  }
}
