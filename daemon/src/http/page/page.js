// Draws the API's description: operations by tag, kinds of problems, and the way to try each of them.

import { code, h, prose, tabs, words } from "./dom.js";
import { bodyOf, requestView, token } from "./request.js";
import { example, limits, resolve, schemaView, typeName } from "./schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");

function operationsOf(description) {
  return Object.entries(description.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method: method.toUpperCase(), operation: item[method] })),
  );
}

/** The path with its parameters marked. */
const pathView = (path) => path.split(/(\{\w+\})/).map((part) => (part.startsWith("{") ? h("em", {}, part) : part));

const titleOf = (tag) => (tag === "dags" ? "DAGs" : tag[0].toUpperCase() + tag.slice(1));

const badge = (method) => h("span", { class: `method ${method.toLowerCase()}` }, method === "DELETE" ? "DEL" : method);

function parameterList(description, parameters) {
  if (!parameters.length) return [];
  const rows = parameters.map((parameter) => [
    h("dt", {}, h("code", {}, parameter.name), parameter.required && h("span", { class: "required" }, "required")),
    h("dd", {},
      h("span", { class: "type" }, `${parameter.in}, ${typeName(description, parameter.schema ?? {})}`),
      [parameter.description, ...limits(description, parameter.schema ?? {})].filter(Boolean).map((text) => h("p", {}, words(text))),
    ),
  ]);
  return [h("h4", {}, "Parameters"), h("dl", { class: "schema" }, rows)];
}

function bodyView(description, operation) {
  const body = bodyOf(description, operation);
  if (!body) return [];
  const { schema } = resolve(description, operation.requestBody).content[body.mediaType];
  return [h("h4", {}, "Body ", h("small", {}, body.mediaType)), schemaView(description, schema ?? {})];
}

function answerList(description, operation) {
  // By their statuses, ranges last: "4XX" is after "401".
  const entries = Object.entries(operation.responses).sort().map(([status, reference]) => {
    const response = resolve(description, reference);
    const content = Object.entries(response.content ?? {});
    const details = h("details", { class: "response" },
      h("summary", {}, h("span", { class: `code-${status[0]}` }, status), " ", words(response.description)));
    details.addEventListener("toggle", () => details.append(...content.flatMap(answerContent)), { once: true });
    const headers = Object.entries(response.headers ?? {});
    if (headers.length) details.append(h("p", { class: "aside" }, "Headers: ", headers.map(([name]) => h("code", {}, name))));
    return details;
  });
  const answerContent = ([mediaType, { schema = {}, examples }]) => {
    const kinds = Object.entries(examples ?? {});
    if (kinds.length) return [problemTable(kinds.map(([, { value }]) => value))];
    const views = [["Properties", () => schemaView(description, schema) ?? typeName(description, schema)]];
    if (mediaType.endsWith("json")) views.push(["Example", () => code(JSON.stringify(example(description, schema), null, 2), "the example")]);
    return [h("p", { class: "aside" }, `${mediaType}, ${typeName(description, schema)}`), tabs("Answer", views)];
  };
  return [h("h4", {}, "Answers"), ...entries];
}

function problemTable(problems) {
  const rows = problems.map(({ type, status, title }) =>
    h("tr", {}, h("td", {}, String(status)), h("td", {}, h("code", {}, type.split(":").pop())), h("td", {}, title)));
  return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ["Status", "Type", "Meaning"].map((name) => h("th", {}, name)))), h("tbody", {}, rows)));
}

/** An operation; its inside is made when it is opened. */
function operationView(description, { path, method, operation }) {
  const details = h("details", { class: "operation", id: operation.operationId },
    h("summary", {}, badge(method), h("span", { class: "path" }, pathView(path)), h("span", { class: "about" }, words(operation.summary))));
  details.addEventListener("toggle", () => {
    const parameters = (operation.parameters ?? []).map((parameter) => resolve(description, parameter));
    details.append(h("div", { class: "inside-operation" },
      h("div", { class: "reference" }, prose(operation.description), parameterList(description, parameters), bodyView(description, operation), answerList(description, operation)),
      h("div", { class: "request" }, requestView(description, method, path, operation, parameters))));
  }, { once: true });
  details.addEventListener("toggle", () => {
    if (details.open) history.replaceState(null, "", `#${details.id}`);
  });
  return details;
}

function sectionView(description, tag, operations) {
  return h("section", { id: `tag-${tag.name}` }, h("h2", {}, titleOf(tag.name)), prose(tag.description), operations.map((entry) => operationView(description, entry)));
}

function problemsView(description) {
  const answers = Object.values(description.components.responses ?? {});
  const problems = answers.flatMap(({ content }) => Object.values(content["application/problem+json"]?.examples ?? {}));
  const values = problems.map(({ value }) => value).sort((a, b) => a.status - b.status);
  const shown = "{\n  \"type\": \"urn:airflow-serverless:problem:environment-not-found\",\n  \"title\": \"No such environment\",\n  \"status\": 404,\n  \"detail\": \"there is no environment dev\",\n  \"hint\": \"…\"\n}";
  return h("section", { id: "tag-problems" }, h("h2", {}, titleOf("problems")),
    prose("Errors are documents of RFC 9457. Their `type` is stable, and is `urn:airflow-serverless:problem:` with one of these words; `detail` says what happened this time, `hint` what to do next, and `errors` lists single faults."),
    code(shown, "the example"), problemTable(values));
}

function navigation(sections) {
  return sections.map(([tag, operations]) => h("div", { class: "group" },
    h("a", { class: "tag", href: `#tag-${tag.name}` }, titleOf(tag.name)),
    h("ul", {}, operations.map(({ method, path, operation }) =>
      h("li", { dataset: { text: `${method} ${path} ${operation.summary} ${operation.operationId}`.toLowerCase() } },
        h("a", { href: `#${operation.operationId}`, title: operation.summary }, badge(method), h("span", {}, operation.operationId.replaceAll("_", " "))))))));
}

/** Shows in the contents and on the page only what has all of the words. */
function search(event) {
  const wanted = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of document.querySelectorAll("#nav li")) {
    item.hidden = !wanted.every((word) => item.dataset.text.includes(word));
    const target = document.getElementById(item.querySelector("a").hash.slice(1));
    target.hidden = item.hidden;
  }
  for (const group of document.querySelectorAll("#nav .group")) {
    const items = [...group.querySelectorAll("li")];
    group.hidden = items.length ? items.every((item) => item.hidden) : wanted.length > 0;
    document.getElementById(group.querySelector("a").hash.slice(1)).hidden = group.hidden;
  }
}

/** Opens what the address names. */
function follow() {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.tagName === "DETAILS") target.open = true;
  target?.scrollIntoView();
}

function access() {
  const input = document.getElementById("token");
  const state = document.getElementById("access-state");
  input.value = token.get();
  input.addEventListener("input", () => {
    token.set(input.value.trim());
    state.textContent = "";
  });
  document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("answered", ({ detail }) => {
    const refused = detail === 401;
    input.setAttribute("aria-invalid", String(refused));
    state.textContent = refused ? "“airflow-serverless daemon token” prints it" : "";
    if (refused) input.focus();
  });
}

async function start() {
  access();
  const response = await fetch("/openapi.json");
  const description = await response.json();
  document.getElementById("version").textContent = description.info.version;
  const operations = operationsOf(description);
  const sections = (description.tags ?? []).map((tag) => [tag, operations.filter(({ operation }) => operation.tags?.includes(tag.name))]);
  main.replaceChildren(
    h("section", { class: "intro" }, prose(description.info.description), h("p", {}, h("a", { href: "/openapi.json" }, "/openapi.json"), ` has all of this for programs, in OpenAPI ${description.openapi}.`)),
    ...sections.map(([tag, entries]) => sectionView(description, tag, entries)),
    problemsView(description),
  );
  document.getElementById("nav").replaceChildren(...navigation([...sections, [{ name: "problems" }, []]]));
  document.getElementById("search").addEventListener("input", search);
  const contents = document.getElementById("contents");
  const narrow = matchMedia("(max-width: 60rem)");
  const fit = () => (contents.open = !narrow.matches);
  narrow.addEventListener("change", fit);
  fit();
  document.getElementById("nav").addEventListener("click", () => narrow.matches && (contents.open = false));
  addEventListener("hashchange", follow);
  follow();
}

start().catch((error) => main.replaceChildren(h("p", { class: "notice" }, `The API's description cannot be read: ${error.message}`)));
