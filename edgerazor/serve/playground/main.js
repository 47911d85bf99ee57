// The page: which models are asked, what is sent, and what the keys do.

import { answer, listModels } from "./client.js";
import { apiKey, saveSettings, saveTurns, setApiKey, settings, turns } from "./store.js";
import { element, size } from "./text.js";
import { TurnView } from "./turns.js";

const find = (id) => document.getElementById(id);
const [chat, shownTurns, prompt, dialog, status] = ["chat", "turns", "prompt", "settings", "status"].map(find);
const views = [];
let models = [], stopping = null;

// Models

async function loadModels() {
  try {
    models = await listModels();
  } catch (fault) {
    models = [];
    if (fault.status === 401) askForKey(apiKey() ? "The server does not take this key." : "The server asks for a key.");
    else say(fault.message);
  }
  const known = (id) => models.some((model) => model.id === id);
  if (models.length && !known(settings.first)) settings.first = models[0].id;
  if (models.length && settings.second && !known(settings.second)) settings.second = "";
  fill(find("model-first"), models, settings.first);
  fill(find("model-second"), [{ id: "", label: "None" }, ...models], settings.second);
  find("model-list").replaceChildren(...models.map((model) => {
    const row = element("li");
    const about = [size(model.bytes), model.engine.replace(/ \(.*/, ""), model.chat ? "" : "goes on from a text"];
    row.append(element("span", model.id), element("span", about.filter(Boolean).join(" · ")));
    return row;
  }));
  refresh();
}

function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map((entry) => {
    const option = element("option", entry.label ?? entry.id);
    option.value = entry.id;
    return option;
  }));
  select.value = chosen;
  select.disabled = !models.length;
}

function chosenModels() {
  return [settings.first, settings.second].filter(Boolean).map((id) => models.find((model) => model.id === id)).filter(Boolean);
}

// Conversation

function refresh() {
  find("welcome").hidden = turns.length > 0;
  find("send").hidden = stopping !== null;
  find("stop").hidden = stopping === null;
  find("send").disabled = !prompt.value.trim() || !models.length;
  shownTurns.classList.toggle("two", turns.some((turn) => turn.answers.length > 1));
}

function addView(turn) {
  const view = new TurnView(turn, (answerView) => void retry(turn, answerView));
  views.push(view);
  shownTurns.append(view.element);
  return view;
}

async function send() {
  const asked = prompt.value.trim();
  const asking = chosenModels();
  if (!asked || !asking.length || stopping) return;
  const turn = { asked, answers: asking.map(({ id, bytes }) => ({ model: id, bytes, content: "", reasoning: "" })) };
  turns.push(turn);
  prompt.value = "";
  grow();
  saveTurns();
  const view = addView(turn);
  refresh();
  chat.scrollTop = chat.scrollHeight;
  await write(view.answers.map((answerView, column) => ({ turn, answerView, column })));
}

async function retry(turn, answerView) {
  if (stopping) return;
  Object.assign(answerView.answer, { content: "", reasoning: "", fault: null, stopped: false, tokens: 0, firstSeconds: null });
  await write([{ turn, answerView, column: turn.answers.indexOf(answerView.answer) }]);
}

async function write(parts) {
  stopping = new AbortController();
  refresh();
  say("Writing");
  await Promise.all(parts.map(writeOne));
  stopping = null;
  saveTurns();
  refresh();
  say(parts.some(({ answerView }) => answerView.answer.fault) ? "An answer failed" : "Answer finished");
}

function messagesBefore(turn, column) {
  const messages = settings.system.trim() ? [{ role: "system", content: settings.system.trim() }] : [];
  for (const earlier of turns.slice(0, turns.indexOf(turn))) {
    const told = earlier.answers[column] ?? earlier.answers[0];
    if (!told.content) continue;
    messages.push({ role: "user", content: earlier.asked }, { role: "assistant", content: told.content });
  }
  return [...messages, { role: "user", content: turn.asked }];
}

async function writeOne({ turn, answerView, column }) {
  const told = answerView.answer, start = performance.now();
  const model = models.find(({ id }) => id === told.model) ?? { id: told.model, chat: true };
  let first = 0, pieces = 0;
  answerView.show(true);
  try {
    for await (const part of answer(model, messagesBefore(turn, column), settings, stopping.signal)) {
      if (part.content || part.reasoning) {
        first ||= performance.now();
        told.firstSeconds = (first - start) / 1000;
        told.seconds = (performance.now() - first) / 1000;
        told.tokens = ++pieces;
      }
      told.content += part.content;
      told.reasoning += part.reasoning;
      told.reason = part.reason ?? told.reason;
      told.tokens = part.tokens ?? told.tokens;
      answerView.showSoon(keepAtEnd);
    }
  } catch (fault) {
    if (fault.name === "AbortError") told.stopped = true;
    else told.fault = fault.message;
    if (fault.status === 401) askForKey("The server does not take this key.");
  }
  keepAtEnd(() => answerView.show());
}

// Shows what is new; who reads further up stays there.
function keepAtEnd(show) {
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
  show();
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

// Settings

function askForKey(message) {
  openSettings();
  find("key-note").textContent = message;
  find("key-note").classList.add("wrong");
  find("key").focus();
}

function openSettings() {
  find("system").value = settings.system;
  find("temperature").value = settings.temperature;
  find("temperature-shown").value = Number(settings.temperature).toFixed(1);
  find("max-tokens").value = settings.maxTokens;
  find("key").value = apiKey();
  find("key-note").textContent = "Kept until this tab is closed.";
  find("key-note").classList.remove("wrong");
  if (!dialog.open) dialog.showModal();
}

function takeSettings() {
  settings.system = find("system").value;
  settings.temperature = Number(find("temperature").value);
  settings.maxTokens = Math.max(1, Math.round(Number(find("max-tokens").value)) || 512);
  const key = find("key").value.trim(), changed = key !== apiKey();
  setApiKey(key);
  saveSettings();
  prompt.focus();
  if (changed || !models.length) void loadModels();
}

function setTheme(theme) {
  settings.theme = theme;
  if (theme) document.documentElement.dataset.theme = theme;
}

function otherTheme() {
  const dark = settings.theme ? settings.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
  saveSettings();
}

function newChat() {
  stopping?.abort();
  turns.length = views.length = 0;
  shownTurns.replaceChildren();
  saveTurns();
  refresh();
  prompt.focus();
}

function say(text) {
  status.textContent = text;
}

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

// Keys and buttons

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void send();
});
prompt.addEventListener("input", () => {
  grow();
  refresh();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !dialog.open) stopping?.abort();
});
find("stop").addEventListener("click", () => stopping?.abort());
find("new-chat").addEventListener("click", newChat);
find("open-settings").addEventListener("click", openSettings);
find("theme").addEventListener("click", otherTheme);
find("temperature").addEventListener("input", (event) => {
  find("temperature-shown").value = Number(event.target.value).toFixed(1);
});
dialog.addEventListener("close", takeSettings);
for (const [id, name] of [["model-first", "first"], ["model-second", "second"]]) {
  find(id).addEventListener("change", (event) => {
    settings[name] = event.target.value;
    saveSettings();
  });
}

addEventListener("pagehide", saveTurns);

setTheme(settings.theme);
turns.forEach(addView);
prompt.focus();
await loadModels();
chat.scrollTop = chat.scrollHeight;
