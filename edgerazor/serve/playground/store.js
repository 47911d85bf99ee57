// What this browser keeps: settings and the conversation; the key only as long as the tab lives.

const SETTINGS = "edgerazor.settings", TURNS = "edgerazor.turns", KEY = "edgerazor.key";
const DEFAULTS = { first: "", second: "", system: "", temperature: 0.7, maxTokens: 512, theme: "" };

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(storage, name, value) {
  try {
    storage.setItem(name, value);
  } catch {
    // Storage is full or switched off: this page still works, and forgets.
  }
}

export const settings = { ...DEFAULTS, ...read(SETTINGS, {}) };
export const turns = read(TURNS, []);

export function saveSettings() {
  write(localStorage, SETTINGS, JSON.stringify(settings));
}

export function saveTurns() {
  write(localStorage, TURNS, JSON.stringify(turns));
}

export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function setApiKey(key) {
  write(sessionStorage, KEY, key);
}
