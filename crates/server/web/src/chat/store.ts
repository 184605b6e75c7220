/** The conversations that the page has, and what is done with them. */
import { batch, computed, type Signal, signal } from "@preact/signals";

import { messageOf } from "../api/http";
import { go, route } from "../route";
import { say } from "../ui/notice";
import { exported, imported } from "./archive";
import { type Conversation, newConversation, NO_SETTINGS, type Settings } from "./conversation";
import { type Head, headOf, memoryShelf, openShelf, type Shelf } from "./shelf";

/** The settings of the next new conversation: those that were used last. */
const LAST = "metallic.settings";

let shelf: Shelf = memoryShelf();

/** All conversations, the latest first. */
export const heads = signal<Head[]>([]);

/** What the list is narrowed to. */
export const search = signal("");

export const found = computed(() => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  return heads.value.filter(({ title }) => words.every((word) => title.toLowerCase().includes(word)));
});

/** Those that were opened, by name. */
const opened = new Map<string, Signal<Conversation>>();

/** The one that is shown; `null` while it is fetched. */
export const current = signal<Signal<Conversation> | null>(null);

/** Tells other tabs which conversation is another now. */
const channel = new BroadcastChannel("metallic");

/** Whether a conversation is being answered here, and so isn't taken from elsewhere. */
let isBusy: (id: string) => boolean = () => false;

export async function start(busy: (id: string) => boolean): Promise<void> {
  isBusy = busy;
  try {
    shelf = await openShelf();
  } catch {
    say("This browser lets the page keep nothing: conversations end with it.");
  }
  await readHeads();
  channel.onmessage = ({ data }: MessageEvent<string>) => void changedElsewhere(data);
}

async function readHeads(): Promise<void> {
  heads.value = (await shelf.heads()).sort((a, b) => b.changed - a.changed);
}

async function changedElsewhere(id: string): Promise<void> {
  await readHeads();
  const known = opened.get(id);
  if (known === undefined || isBusy(id)) return;
  const fresh = await shelf.get(id);
  if (fresh) known.value = fresh;
  else forget(id);
}

/** Shows a conversation, or a new one where there is none of that name. */
export async function open(id: string | null): Promise<void> {
  const known = id === null ? undefined : opened.get(id);
  if (known) {
    current.value = known;
    return;
  }
  const kept = id === null ? undefined : await shelf.get(id);
  // Meanwhile another may be wanted.
  if (route.value.view !== "chat" || route.value.id !== id) return;
  if (id !== null && kept === undefined) {
    go({ view: "chat", id: null });
    return;
  }
  current.value = kept ? remember(kept) : fresh();
}

/** One that is kept once something is said. */
function fresh(): Signal<Conversation> {
  const model = current.peek()?.peek().model ?? "";
  return remember(newConversation(model, lastSettings()));
}

function remember(conversation: Conversation): Signal<Conversation> {
  const known = signal(conversation);
  opened.set(conversation.id, known);
  return known;
}

function lastSettings(): Settings {
  try {
    const kept = JSON.parse(localStorage.getItem(LAST) ?? "{}") as Partial<Settings>;
    return { ...NO_SETTINGS, ...kept };
  } catch {
    return NO_SETTINGS;
  }
}

/** Changes a conversation and keeps it. */
export function change(id: string, how: (old: Conversation) => Conversation): void {
  const known = opened.get(id);
  if (known === undefined) return;
  known.value = how(known.peek());
  // What nothing was said in isn't worth a place in the list.
  if (known.peek().messages.length > 0) keep(known.peek());
}

export function conversationOf(id: string): Conversation | undefined {
  return opened.get(id)?.peek();
}

/** Keeps a conversation as it is, without showing it anew. */
export function keep(conversation: Conversation): void {
  const head = headOf(conversation);
  heads.value = [head, ...heads.peek().filter(({ id }) => id !== head.id)].sort((a, b) => b.changed - a.changed);
  shelf.put(conversation).then(
    () => channel.postMessage(conversation.id),
    (error: unknown) => say(`The browser did not keep the conversation: ${messageOf(error)}`),
  );
}

export function setSettings(id: string, settings: Settings): void {
  localStorage.setItem(LAST, JSON.stringify(settings));
  change(id, (old) => ({ ...old, settings }));
}

export function setModel(id: string, model: string): void {
  change(id, (old) => ({ ...old, model }));
}

export async function rename(id: string, title: string): Promise<void> {
  if (!opened.has(id)) {
    const kept = await shelf.get(id);
    if (kept === undefined) return;
    remember(kept);
  }
  change(id, (old) => ({ ...old, title, isNamed: true }));
}

export async function remove(id: string): Promise<void> {
  await shelf.remove(id);
  channel.postMessage(id);
  forget(id);
}

function forget(id: string): void {
  batch(() => {
    opened.delete(id);
    heads.value = heads.peek().filter((head) => head.id !== id);
    if (current.peek()?.peek().id === id) {
      current.value = fresh();
      go({ view: "chat", id: null });
    }
  });
}

/** Has the browser save all conversations, or one, as a file. */
export async function exportFile(id: string | null): Promise<void> {
  const all = await shelf.all();
  const conversations = id === null ? all : all.filter((conversation) => conversation.id === id);
  const url = URL.createObjectURL(new Blob([exported(conversations)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = id === null ? "conversations.json" : "conversation.json";
  link.click();
  // Once the browser has begun to save it.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Takes the conversations of a file in beside those that are there. */
export async function importFile(file: File): Promise<void> {
  try {
    const conversations = imported(await file.text());
    for (const conversation of conversations) await shelf.put(conversation);
    await readHeads();
    say(conversations.length === 1 ? "One conversation was imported." : `${conversations.length} conversations were imported.`);
  } catch (error) {
    say(`Nothing was imported. ${messageOf(error)}`);
  }
}
