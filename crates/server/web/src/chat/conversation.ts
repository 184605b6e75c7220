/**
 * A conversation: a tree of messages, since a message may be said again in another way. Values are never changed but made
 * anew, so that what shows a message is drawn again only if the message is another.
 */
import type { ApiMessage, Call } from "../api/completions";
import { newId } from "../id";

export interface Settings {
  system: string;
  /** Numbers as they were typed; the server's own where one is empty. */
  temperature: string;
  top_p: string;
  top_k: string;
  min_p: string;
  max_tokens: string;
  seed: string;
  /** A JSON array of tools as OpenAI's API has them. */
  tools: string;
}

/** The numbers among the settings. */
export const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"] as const;

export const NO_SETTINGS: Settings = {
  system: "",
  temperature: "",
  top_p: "",
  top_k: "",
  min_p: "",
  max_tokens: "",
  seed: "",
  tools: "",
};

/** What an answer took. */
export interface Took {
  nGenerated: number;
  /** Whether that is the number of pieces that came, of an answer whose end didn't. */
  isAbout: boolean;
  nPrompt: number;
  nCached: number;
  /** From the request to the first piece, and from there to the end. */
  readMs: number;
  writeMs: number;
}

export interface Message {
  id: string;
  /** The message that it follows, or `ROOT`. */
  parent: string;
  role: "user" | "assistant" | "tool";
  content: string;
  reasoning?: string;
  calls?: Call[];
  /** Of a tool's result. */
  callId?: string;
  /** Who answers. */
  model?: string;
  /** Why an answer ended: the server's word, or `stopped`, `interrupted`, `failed`. */
  ended?: string;
  error?: string;
  took?: Took;
}

export interface Conversation {
  id: string;
  title: string;
  /** Whether somebody gave it the title. */
  isNamed: boolean;
  changed: number;
  model: string;
  settings: Settings;
  /** In the order in which they were made. */
  messages: Message[];
  /** Of messages that several follow, which is shown. */
  chosen: Record<string, string>;
}

/** What the first messages follow. */
export const ROOT = "";

/** A title's length at most. */
const MAX_TITLE = 60;

export function newConversation(model: string, settings: Settings): Conversation {
  const id = newId();
  return { id, title: "", isNamed: false, changed: Date.now(), model, settings, messages: [], chosen: {} };
}

/** Which messages follow which, found once for each value. */
const followers = new WeakMap<Message[], Map<string, Message[]>>();

/** The messages that follow one: alternatives of each other. */
export function following({ messages }: Conversation, parent: string): Message[] {
  let index = followers.get(messages);
  if (index === undefined) {
    index = new Map();
    for (const message of messages) {
      const known = index.get(message.parent);
      if (known) known.push(message);
      else index.set(message.parent, [message]);
    }
    followers.set(messages, index);
  }
  return index.get(parent) ?? [];
}

/** The messages that are shown. */
export function shown(conversation: Conversation): Message[] {
  const path: Message[] = [];
  for (let parent = ROOT; ; ) {
    const options = following(conversation, parent);
    const message = options.find(({ id }) => id === conversation.chosen[parent]) ?? options.at(-1);
    if (message === undefined) return path;
    path.push(message);
    parent = message.id;
  }
}

/** With a message more, which is shown. */
export function withMessage(conversation: Conversation, message: Message): Conversation {
  return {
    ...conversation,
    title: conversation.title || (message.role === "user" ? titleOf(message.content) : ""),
    changed: Date.now(),
    messages: [...conversation.messages, message],
    chosen: { ...conversation.chosen, [message.parent]: message.id },
  };
}

/** With a message in the place of the one of its name. */
export function withChange(conversation: Conversation, message: Message): Conversation {
  const messages = conversation.messages.map((old) => (old.id === message.id ? message : old));
  return { ...conversation, changed: Date.now(), messages };
}

/** Without a message that nothing follows. */
export function withoutMessage(conversation: Conversation, id: string): Conversation {
  return { ...conversation, messages: conversation.messages.filter((message) => message.id !== id) };
}

export function titleOf(text: string): string {
  const line = text.trim().split("\n", 1)[0] ?? "";
  const letters = [...line];
  return letters.length > MAX_TITLE ? `${letters.slice(0, MAX_TITLE - 1).join("").trimEnd()}…` : line;
}

/** Calls that no shown message has the result of. */
export function openCalls(path: Message[]): Call[] {
  const last = path.findLast(({ role }) => role === "assistant");
  const results = new Set(path.map(({ callId }) => callId));
  return last?.calls?.filter(({ id }) => !results.has(id)) ?? [];
}

/** What the server is asked, for the message that follows these. */
export function apiMessages(settings: Settings, path: Message[]): ApiMessage[] {
  const messages: ApiMessage[] = [];
  if (settings.system.trim() !== "") messages.push({ role: "system", content: settings.system });
  for (const { role, content, reasoning, calls, callId } of path) {
    if (role === "user") messages.push({ role, content });
    else if (role === "tool") messages.push({ role, content, tool_call_id: callId ?? "" });
    else if (content !== "" || calls) {
      messages.push({
        role,
        content,
        ...(reasoning ? { reasoning_content: reasoning } : {}),
        ...(calls ? { tool_calls: calls.map(apiCall) } : {}),
      });
    }
  }
  return messages;
}

function apiCall({ id, name, arguments: text }: Call) {
  return { id, type: "function" as const, function: { name, arguments: text } };
}
