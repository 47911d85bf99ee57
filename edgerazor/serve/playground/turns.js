// A turn on the screen: what was asked, and the answer of each model with its figures.

import { element, setText, size } from "./text.js";

export class TurnView {
  constructor(turn, onRetry) {
    this.element = element("section", "", "turn");
    this.element.append(element("p", turn.asked, "asked"));
    const answers = element("div", "", "answers");
    this.answers = turn.answers.map((answer) => new AnswerView(answer, onRetry));
    answers.append(...this.answers.map((view) => view.element));
    this.element.append(answers);
  }
}

export class AnswerView {
  constructor(answer, onRetry) {
    this.answer = answer;
    this.element = element("article", "", "answer");
    const title = element("h3", answer.model);
    title.append(element("span", size(answer.bytes)));
    this.thought = element("details", "", "thought");
    this.thought.append(element("summary", "Thought"), element("div"));
    this.text = element("div", "", "text");
    this.measured = element("p", "", "measured");
    this.fault = element("p", "", "fault");
    this.fault.append(element("span"), element("button", "Try again"));
    this.fault.lastChild.type = "button";
    this.fault.lastChild.addEventListener("click", () => onRetry(this));
    this.element.append(title, this.thought, this.text, this.measured, this.fault);
    this.show();
  }

  // While tokens come faster than the screen is drawn, one drawing serves several.
  showSoon(around) {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => around(() => this.show(true)));
  }

  show(writing = false) {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    const { reasoning, content, fault } = this.answer;
    this.element.classList.toggle("writing", writing);
    this.element.setAttribute("aria-busy", String(writing));
    this.thought.hidden = !reasoning;
    this.thought.lastChild.textContent = reasoning;
    setText(this.text, content);
    this.measured.replaceChildren(...figures(this.answer).map((figure) => element("span", figure)));
    this.fault.hidden = !fault;
    this.fault.firstChild.textContent = fault ?? "";
  }
}

function figures({ tokens, firstSeconds, seconds, stopped, reason }) {
  const shown = [];
  if (firstSeconds != null) shown.push(`first token ${firstSeconds.toFixed(2)} s`);
  // A short answer may come in one piece; what it took from the question on is all that is known then.
  const rate = seconds > 0 ? (tokens - 1) / seconds : tokens / firstSeconds;
  if (tokens > 1 && Number.isFinite(rate)) shown.push(`${rate.toFixed(1)} tokens/s`);
  if (tokens) shown.push(`${tokens} tokens`);
  if (stopped) shown.push("stopped");
  if (reason === "length") shown.push("cut at max tokens");
  return shown;
}
