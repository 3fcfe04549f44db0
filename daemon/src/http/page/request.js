// One operation as a request: as a line for curl, and as a form that sends it.

import { code, h, tabs } from "./dom.js";
import { example, resolve, typeName } from "./schema.js";

const TOKEN_KEY = "airflowd-token";

/** The token, kept for as long as this tab is open. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN_KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(TOKEN_KEY, value) : sessionStorage.removeItem(TOKEN_KEY)),
};

/** The media type of an operation's body and a text that fits it; nothing if it has no body. */
export function bodyOf(document, operation) {
  const content = Object.entries(resolve(document, operation.requestBody).content ?? {});
  if (!content.length) return undefined;
  const [mediaType, { schema = {} }] = content[0];
  if (mediaType.endsWith("json")) return { mediaType, text: JSON.stringify(example(document, schema), null, 2) };
  return { mediaType, text: "from airflow.sdk import dag, task\n" };
}

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/** The path with its parts and the query filled in; `{name}` stays where nothing is. */
function target(path, parameters, values) {
  const filled = path.replace(/\{(\w+)\}/g, (whole, name) => (values[name] ? encodeURIComponent(values[name]) : whole));
  const query = new URLSearchParams();
  for (const { in: where, name } of parameters) if (where === "query" && values[name]) query.set(name, values[name]);
  return filled + (query.size ? `?${query}` : "");
}

/** Lines for a shell. The token is in no list of processes: curl reads it from a file descriptor. */
function curl({ method, path, headers, body }, socket) {
  const authorization = `-H @<(echo "Authorization: Bearer $(airflow-serverless daemon token)")`;
  const parts = [socket ? `curl --unix-socket "$SOCKET"` : `curl ${authorization}`];
  if (method !== "GET") parts.push(`-X ${method}`);
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body) parts.push(body.mediaType.endsWith("json") ? `-d ${quoted(body.text)}` : "--data-binary @my_dag.py");
  parts.push(quoted((socket ? "http://localhost" : location.origin) + path));
  return parts.join(" \\\n  ");
}

/** The examples for curl and the form of an operation. */
export function requestView(document, method, path, operation, parameters) {
  const body = bodyOf(document, operation);
  const fields = parameters.map((parameter) => field(document, parameter, () => draw()));
  const text = body && h("textarea", { rows: Math.min(18, body.text.split("\n").length + 1), spellcheck: "false", "aria-label": "Body", oninput: () => draw() });
  if (text) text.value = body.text;
  const request = () => {
    const values = Object.fromEntries(fields.map(({ name, input }) => [name, input.value.trim()]));
    const headers = body ? { "Content-Type": body.mediaType } : {};
    for (const { in: where, name } of parameters) if (where === "header" && values[name]) headers[name] = values[name];
    return { method, path: target(path, parameters, values), headers, body: body && { ...body, text: text.value } };
  };
  const examples = h("div");
  const draw = () => {
    const shown = request();
    examples.replaceChildren(
      tabs("How to connect", [
        ["curl, Unix socket", () => [code(curl(shown, true), "the command"), h("p", { class: "aside" }, h("code", {}, "airflow-serverless daemon status"), " names the socket.")]],
        ["curl, port", () => code(curl(shown, false), "the command")],
      ]),
    );
  };
  draw();
  const answer = h("div", { class: "answer", "aria-live": "polite" });
  const button = h("button", { type: "submit", class: `send ${method.toLowerCase()}` }, `Send ${method}`);
  const form = h("form", { class: "try", onsubmit: send }, fields.map(({ row }) => row), text && h("label", { class: "body" }, h("span", {}, "Body ", h("small", {}, body.mediaType)), text), button, answer);
  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    answer.replaceChildren(h("p", { class: "aside" }, "Waiting for the answer …"));
    answer.replaceChildren(...(await exchange(request())));
    button.disabled = false;
  }
  return [h("h4", {}, "Example"), examples, h("h4", {}, "Try it"), form];
}

function field(document, parameter, changed) {
  const { name, required, in: where } = parameter;
  const schema = resolve(document, parameter.schema);
  const choices = schema.enum ?? (schema.type === "boolean" ? ["true", "false"] : undefined);
  const input = choices
    ? h("select", { required, onchange: changed }, !required && h("option", { value: "" }, ""), choices.map((choice) => h("option", {}, choice)))
    : h("input", { required, placeholder: typeName(document, parameter.schema ?? {}), spellcheck: "false", autocapitalize: "off", oninput: changed });
  return { name, input, row: h("label", {}, h("span", {}, name, " ", h("small", {}, where)), input) };
}

/** Sends it, and shows what came back. */
async function exchange({ method, path, headers, body }) {
  const started = performance.now();
  const authorization = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  try {
    const response = await fetch(path, { method, headers: { ...headers, ...authorization }, body: body?.text });
    const text = await response.text();
    const spent = Math.round(performance.now() - started);
    dispatchEvent(new CustomEvent("answered", { detail: response.status }));
    const kind = response.ok ? "good" : "bad";
    const told = ["location", "etag", "retry-after", "x-request-id"].filter((name) => response.headers.has(name));
    return [
      h("p", { class: `status ${kind}` }, h("strong", {}, `${response.status} ${response.statusText}`), ` in ${spent} ms`),
      h("p", { class: "aside" }, told.map((name) => h("span", { class: "header" }, `${name}: ${response.headers.get(name)}`))),
      text && code(pretty(text, response.headers.get("content-type")), "the answer"),
    ].filter(Boolean);
  } catch (error) {
    return [h("p", { class: "status bad" }, h("strong", {}, "No answer. "), `Does the daemon still run? (${error.message})`)];
  }
}

function pretty(text, mediaType) {
  if (!/json/.test(mediaType ?? "")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
