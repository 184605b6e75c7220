/** Answers that are being made. Each has a signal of its own, so that a token draws its message and nothing else. */
import { type Signal, signal } from "@preact/signals";

import { type Call, complete, type Piece } from "../api/completions";
import { isAbort, messageOf } from "../api/http";
import { newId } from "../id";
import { names } from "../server";
import { announce } from "../ui/notice";
import {
  apiMessages,
  type Conversation,
  type Message,
  ROOT,
  shown,
  type Took,
  withChange,
  withMessage,
  withoutMessage,
} from "./conversation";
import { asked } from "./settings";
import { change, conversationOf, keep } from "./store";

/** How often an answer is kept while it is made, so that a page that is closed loses little. */
const KEEP_EVERY_MS = 1000;

export interface Run {
  message: string;
  /** The message so far. */
  live: Signal<Message>;
  stop: () => void;
  /** Keeps what there is of it. */
  keep: () => void;
}

/** Whether the page is being closed: then connections end by themselves. */
let isClosing = false;

addEventListener("pagehide", () => {
  isClosing = true;
  for (const run of runs.peek().values()) run.keep();
});

addEventListener("pageshow", () => {
  isClosing = false;
});

/** By conversation. */
export const runs = signal<ReadonlyMap<string, Run>>(new Map());

function setRun(id: string, run: Run | null): void {
  const next = new Map(runs.peek());
  if (run === null) next.delete(id);
  else next.set(id, run);
  runs.value = next;
}

/** Says something and has it answered. */
export function send(id: string, content: string): void {
  change(id, (old) => withMessage(old, userMessage(shown(old).at(-1)?.id ?? ROOT, content)));
  void answer(id);
}

/** Says something else in a message's place; both stay. */
export function sendInstead(id: string, message: Message, content: string): void {
  change(id, (old) => withMessage(old, userMessage(message.parent, content)));
  void answer(id);
}

/** Gives results of calls, in their order, and has the answer go on. */
export function sendResults(id: string, results: { call: Call; content: string }[]): void {
  for (const { call, content } of results) {
    change(id, (old) => {
      const parent = shown(old).at(-1)?.id ?? ROOT;
      return withMessage(old, { id: newId(), parent, role: "tool", content, callId: call.id });
    });
  }
  void answer(id);
}

/** Has a message answered anew: beside the answer that there is, or in its place if it says nothing. */
export function again(id: string, message: Message): void {
  const isEmpty = message.content === "" && !message.reasoning && !message.calls;
  change(id, (old) => {
    const without = isEmpty ? withoutMessage(old, message.id) : old;
    return withAnswer(without, message.parent);
  });
  void answerInto(id);
}

function userMessage(parent: string, content: string): Message {
  return { id: newId(), parent, role: "user", content };
}

/** With an answer that has yet to come, from the model that was chosen or the server's first. */
function withAnswer(old: Conversation, parent: string): Conversation {
  const model = old.model || (names.peek()[0] ?? "");
  const message: Message = { id: newId(), parent, role: "assistant", content: "", model };
  return withMessage({ ...old, model }, message);
}

function answer(id: string): Promise<void> {
  change(id, (old) => withAnswer(old, shown(old).at(-1)?.id ?? ROOT));
  return answerInto(id);
}

/** Makes the last message that is shown what the server says. */
async function answerInto(id: string): Promise<void> {
  const conversation = conversationOf(id);
  const message = conversation && shown(conversation).at(-1);
  if (conversation === undefined || message === undefined || runs.peek().has(id)) return;
  const controller = new AbortController();
  const live = signal(message);
  const answer = new Answer(message);
  const keepSoFar = () => {
    const now = conversationOf(id);
    if (now) keep(withChange(now, { ...answer.message(), ended: "interrupted" }));
  };
  setRun(id, { message: message.id, live, stop: () => controller.abort(), keep: keepSoFar });
  announce("Answering…");
  let drawn = 0;
  let kept = performance.now();
  const draw = () => {
    drawn = 0;
    live.value = answer.message();
  };
  try {
    for await (const piece of pieces(conversation, controller.signal)) {
      answer.push(piece);
      // Once for each picture of the screen, however many tokens come.
      drawn ||= requestAnimationFrame(draw);
      if (performance.now() - kept > KEEP_EVERY_MS) {
        kept = performance.now();
        keepSoFar();
      }
    }
  } catch (error) {
    if (isClosing) answer.end = "interrupted";
    else if (isAbort(error)) answer.end = "stopped";
    else [answer.end, answer.error] = ["failed", messageOf(error)];
  }
  cancelAnimationFrame(drawn);
  change(id, (old) => withChange(old, answer.message()));
  setRun(id, null);
  announce(answer.error ? `The answer failed: ${answer.error}` : "The answer is complete.");
}

function pieces(conversation: Conversation, stop: AbortSignal): AsyncGenerator<Piece> {
  const { model, settings } = conversation;
  const path = shown(conversation).slice(0, -1);
  const named = model === "" ? {} : { model };
  return complete({ ...named, messages: apiMessages(settings, path), ...asked(settings) }, stop);
}

/** An answer as it grows. */
class Answer {
  end = "stop";
  error: string | undefined;
  private content = "";
  private reasoning = "";
  private readonly calls: Call[] = [];
  private usage: Extract<Piece, { kind: "usage" }> | undefined;
  private nPieces = 0;
  private readonly began = performance.now();
  private first: number | undefined;
  private last = this.began;

  constructor(private readonly base: Message) {}

  push(piece: Piece): void {
    if (piece.kind === "usage") {
      this.usage = piece;
      return;
    }
    this.last = performance.now();
    if (piece.kind === "finish") {
      this.end = piece.reason;
      return;
    }
    this.first ??= this.last;
    this.nPieces += 1;
    if (piece.kind === "content") this.content += piece.text;
    else if (piece.kind === "reasoning") this.reasoning += piece.text;
    else this.addCall(piece.index, piece.call);
  }

  /** A call that comes whole, or its arguments piece by piece. */
  private addCall(index: number, { id, name, arguments: text }: Call): void {
    const known = this.calls[index];
    this.calls[index] = known
      ? { id: known.id || id, name: known.name || name, arguments: known.arguments + text }
      : { id: id || newId(), name, arguments: text };
  }

  message(): Message {
    const calls = this.calls.filter(Boolean);
    return {
      ...this.base,
      content: this.content,
      ...(this.reasoning ? { reasoning: this.reasoning } : {}),
      ...(calls.length > 0 ? { calls } : {}),
      ended: this.end,
      ...(this.error ? { error: this.error } : {}),
      ...(this.first === undefined ? {} : { took: this.took(this.first) }),
    };
  }

  private took(first: number): Took {
    return {
      nGenerated: this.usage?.nGenerated ?? this.nPieces,
      isAbout: this.usage === undefined,
      nPrompt: this.usage?.nPrompt ?? 0,
      nCached: this.usage?.nCached ?? 0,
      readMs: first - this.began,
      writeMs: this.last - first,
    };
  }
}
