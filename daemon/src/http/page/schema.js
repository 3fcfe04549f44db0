// JSON Schemas as people read them, and examples made from them.

import { h, words } from "./dom.js";

const DEEPEST_EXAMPLE = 6;

/** Follows a reference into the document. */
export function resolve(document, value) {
  if (!value?.$ref) return value ?? {};
  const path = value.$ref.slice(2).split("/");
  return resolve(document, path.reduce((found, key) => found?.[key], document));
}

/** The one schema that is meant by "this or null", and by compositions of one. */
function plain(document, schema) {
  const choices = (schema.oneOf ?? schema.anyOf ?? []).filter((choice) => choice.type !== "null");
  return choices.length === 1 ? choices[0] : schema;
}

/** Its properties, those of the schemas that it is composed of included. */
function properties(document, schema) {
  const resolved = resolve(document, schema);
  const parts = (resolved.allOf ?? []).map((part) => properties(document, part));
  return parts.reduce(
    (all, part) => ({ entries: { ...all.entries, ...part.entries }, required: [...all.required, ...part.required] }),
    { entries: resolved.properties ?? {}, required: resolved.required ?? [] },
  );
}

/** What kind of value it is, in a few words. */
export function typeName(document, schema) {
  const resolved = resolve(document, plain(document, schema));
  const types = [resolved.type ?? []].flat().filter((type) => type !== "null");
  if (resolved.enum) return resolved.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (types[0] === "array") return `list of ${typeName(document, resolved.items ?? {})}`;
  const choices = resolved.oneOf ?? resolved.anyOf;
  if (choices) return choices.map((choice) => typeName(document, choice)).join(" | ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  const inner = plain(document, schema);
  if (inner !== schema && inner.$ref) return inner.$ref.split("/").pop();
  if (types.length === 0) return resolved.allOf ? "object" : "any";
  return types.join(" | ") + (resolved.format && !/^u?int/.test(resolved.format) ? ` (${resolved.format})` : "");
}

/** Its limits, such as "1 to 1000". */
export function limits(document, schema) {
  const { minimum, maximum, minLength, maxLength, pattern, default: usual } = resolve(document, plain(document, schema));
  const range = (low, high, unit) => {
    if (low !== undefined && high !== undefined) return `${low} to ${high}${unit}`;
    if (low !== undefined) return `at least ${low}${unit}`;
    return high === undefined ? undefined : `at most ${high}${unit}`;
  };
  // The limits of the machine's own numbers say nothing to people.
  const own = (value) => (Math.abs(value) >= 2 ** 31 - 1 ? undefined : value);
  const length = minLength > 1 || maxLength ? range(minLength, maxLength, " characters") : undefined;
  return [
    range(own(minimum), own(maximum), ""),
    length,
    pattern && `\`${pattern}\``,
    usual !== undefined && usual !== null && `\`${JSON.stringify(usual)}\` if absent`,
  ].filter(Boolean);
}

/** An object's properties, and inside them those of what they hold, as far as the reader opens them. */
export function schemaView(document, schema) {
  let resolved = resolve(document, plain(document, schema));
  if (resolved.items) resolved = resolve(document, plain(document, resolved.items));
  const { entries, required } = properties(document, resolved);
  const rows = Object.entries(entries).map(([name, property]) => propertyRow(document, name, property, required));
  return rows.length ? h("dl", { class: "schema" }, rows) : undefined;
}

function propertyRow(document, name, property, required) {
  const about = property.description ?? resolve(document, plain(document, property)).description;
  const details = [about, ...limits(document, property)].filter(Boolean).map((text) => h("p", {}, words(text)));
  return [
    h("dt", {}, h("code", {}, name), required.includes(name) && h("span", { class: "required" }, "required")),
    h("dd", {}, h("span", { class: "type" }, typeName(document, property)), details, inside(document, property)),
  ];
}

/** Made when it is opened: schemas may hold themselves. */
function inside(document, property) {
  let resolved = resolve(document, plain(document, property));
  if (resolved.items) resolved = resolve(document, plain(document, resolved.items));
  if (!Object.keys(properties(document, resolved).entries).length) return undefined;
  const details = h("details", { class: "inside" }, h("summary", {}, "Show its properties"));
  details.addEventListener("toggle", () => details.append(schemaView(document, resolved)), { once: true });
  return details;
}

/** A value that fits the schema; of objects only what is required, if there is any. */
export function example(document, schema, depth = 0) {
  const resolved = resolve(document, plain(document, schema));
  const given = resolved.example ?? resolved.examples?.[0] ?? resolved.const ?? resolved.enum?.[0] ?? resolved.default;
  if (given !== undefined && given !== null) return given;
  const type = [resolved.type ?? []].flat().find((name) => name !== "null");
  if (type === "array") return depth > DEEPEST_EXAMPLE ? [] : [example(document, resolved.items ?? {}, depth + 1)];
  if (type === "integer" || type === "number") return Math.max(resolved.minimum ?? 0, 0) || 1;
  if (type === "boolean") return false;
  if (type === "string") return { "date-time": "2026-01-31T06:00:00Z", password: "…", uuid: crypto.randomUUID() }[resolved.format] ?? "text";
  const { entries, required } = properties(document, resolved);
  const names = Object.keys(entries).filter((name) => !required.length || required.includes(name));
  if (depth > DEEPEST_EXAMPLE) return {};
  if (!required.length && depth > 0) return {};
  return Object.fromEntries(names.map((name) => [name, example(document, entries[name], depth + 1)]));
}
