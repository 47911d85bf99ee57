// Text of a model as nodes: code, bold words, everything else as it is. Nothing of it is read as HTML.

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;

export function setText(element, text) {
  const nodes = [];
  text.split("```").forEach((part, index) => {
    if (index % 2) nodes.push(codeBlock(part));
    else nodes.push(...inline(nodes.length ? part.replace(/^\n+/, "") : part.replace(/^\s+/, "")));
  });
  element.replaceChildren(...nodes);
}

function codeBlock(part) {
  const lineEnd = part.indexOf("\n");
  const hasLanguage = lineEnd >= 0 && /^[\w+#.-]*[ \t]*$/.test(part.slice(0, lineEnd));
  const block = document.createElement("pre");
  block.tabIndex = 0;
  block.append(element("code", (hasLanguage ? part.slice(lineEnd + 1) : part).replace(/\n$/, "")));
  return block;
}

function* inline(text) {
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    yield text.slice(end, match.index);
    yield match[1] !== undefined ? element("code", match[1]) : element("strong", match[2]);
    end = match.index + match[0].length;
  }
  yield text.slice(end);
}

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 1)} MB` : `${(bytes / 1e3).toFixed(0)} kB`;
}
