/** Conversations as a file, and what a file must be to become conversations. */
import type { Call } from "../api/completions";
import { newId } from "../id";
import { type Conversation, type Message, NO_SETTINGS, ROOT, type Settings, type Took } from "./conversation";

const FORMAT = "metallic-conversations";
const VERSION = 1;

export function exported(conversations: Conversation[]): string {
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 2);
}

/** The conversations of a file, each under a new name. What is wrong is an error that says where. */
export function imported(text: string): Conversation[] {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  const { format, version, conversations } = object(file, "the file");
  if (format !== FORMAT) throw new Error("This is no file of conversations that this page has written.");
  if (version !== VERSION) throw new Error(`Version ${String(version)} of these files is not known here.`);
  return list(conversations, "conversations").map((value, i) => conversation(value, `conversations[${i}]`));
}

function conversation(value: unknown, at: string): Conversation {
  const raw = object(value, at);
  const messages = list(raw.messages, `${at}.messages`).map((message, i) => read(message, `${at}.messages[${i}]`));
  // A message follows an earlier one: so there is a first one, and no circle.
  const known = new Set([ROOT]);
  for (const [i, { id, parent }] of messages.entries()) {
    if (!known.has(parent)) throw new Error(`${at}.messages[${i}] follows none that comes before it.`);
    if (known.has(id)) throw new Error(`${at}.messages[${i}] has the name of another.`);
    known.add(id);
  }
  const chosen = Object.entries(object(raw.chosen ?? {}, `${at}.chosen`)).map(([parent, id]) => [parent, String(id)]);
  return {
    id: newId(),
    title: string(raw.title, `${at}.title`),
    isNamed: raw.isNamed === true,
    changed: typeof raw.changed === "number" ? raw.changed : Date.now(),
    model: typeof raw.model === "string" ? raw.model : "",
    settings: settings(raw.settings),
    messages,
    chosen: Object.fromEntries(chosen) as Record<string, string>,
  };
}

function settings(value: unknown): Settings {
  const raw = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const known = Object.keys(NO_SETTINGS).map((name) => [name, typeof raw[name] === "string" ? raw[name] : ""]);
  return Object.fromEntries(known) as Settings;
}

function read(value: unknown, at: string): Message {
  const raw = object(value, at);
  const { role } = raw;
  if (role !== "user" && role !== "assistant" && role !== "tool") throw new Error(`${at}.role is not known.`);
  const message: Message = {
    id: string(raw.id, `${at}.id`),
    parent: string(raw.parent, `${at}.parent`),
    role,
    content: string(raw.content, `${at}.content`),
  };
  for (const name of ["reasoning", "callId", "model", "ended", "error"] as const) {
    if (raw[name] !== undefined) message[name] = string(raw[name], `${at}.${name}`);
  }
  if (raw.calls !== undefined) {
    message.calls = list(raw.calls, `${at}.calls`).map((call, i) => readCall(call, `${at}.calls[${i}]`));
  }
  if (raw.took !== undefined) message.took = readTook(raw.took, `${at}.took`);
  return message;
}

function readCall(value: unknown, at: string): Call {
  const raw = object(value, at);
  const text = (name: string) => string(raw[name], `${at}.${name}`);
  return { id: text("id"), name: text("name"), arguments: text("arguments") };
}

function readTook(value: unknown, at: string): Took {
  const raw = object(value, at);
  const number = (name: string) => {
    const found = raw[name];
    if (typeof found !== "number") throw new Error(`${at}.${name} must be a number.`);
    return found;
  };
  return {
    nGenerated: number("nGenerated"),
    isAbout: raw.isAbout === true,
    nPrompt: number("nPrompt"),
    nCached: number("nCached"),
    readMs: number("readMs"),
    writeMs: number("writeMs"),
  };
}

function object(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${at} must be an object.`);
  return value as Record<string, unknown>;
}

function list(value: unknown, at: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${at} must be an array.`);
  return value;
}

function string(value: unknown, at: string): string {
  if (typeof value !== "string") throw new Error(`${at} must be a text.`);
  return value;
}
