// Elements from plain data. Text stays text: nothing that the document says is ever read as HTML.

/** An element with properties (`class`, `dataset`, `onclick`, attributes) and children: nodes, texts, nothing. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Text whose parts in backticks are code. */
export function words(text = "") {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/** Paragraphs of such text. */
export function prose(text = "") {
  return text.split(/\n\s*\n/).filter(Boolean).map((paragraph) => h("p", {}, words(paragraph)));
}

/** A block of code with a button that copies it. */
export function code(text, label) {
  const button = h("button", { type: "button", class: "copy", onclick: copy, "aria-label": `Copy ${label}` }, "Copy");
  async function copy() {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }
  return h("div", { class: "code" }, h("pre", {}, h("code", {}, text)), button);
}

/** Choices of which one is shown: pairs of a name and what makes its content. */
export function tabs(name, choices) {
  const content = h("div", { class: "tab" });
  const buttons = choices.map(([title, make], index) =>
    h("button", { type: "button", role: "tab", "aria-selected": index === 0, onclick: () => show(index, make) }, title),
  );
  function show(chosen, make) {
    buttons.forEach((button, index) => button.setAttribute("aria-selected", String(index === chosen)));
    content.replaceChildren(...[make()].flat());
  }
  show(0, choices[0][1]);
  return h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": name }, buttons), content);
}
