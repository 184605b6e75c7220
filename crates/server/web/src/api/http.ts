/** Requests to the server that the page is from, with its key where it wants one. */
import { signal } from "@preact/signals";

/** What the server refuses or fails at, in its own words. */
export class ApiError extends Error {
  constructor(
    message: string,
    /** 0 where there was no answer at all. */
    readonly status: number,
    /** The least memory that a model can do with, where that is the reason. */
    readonly floorBytes: number | null = null,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** For as long as the tab is open, and for no other tab. */
const KEY = "metallic.key";

interface Asking {
  /** Whether a key was given, and was not right. */
  wasWrong: boolean;
  answer: (key: string | null) => void;
}

/** Set while somebody is asked for the server's key. */
export const asking = signal<Asking | null>(null);

let pending: Promise<string | null> | null = null;

/** Whether somebody was asked and gave none: what the page asks by itself doesn't ask them again. */
let hasDeclined = false;

/** Asks for a key once, however many requests want it. */
function askForKey(wasWrong: boolean): Promise<string | null> {
  pending ??= new Promise<string | null>((resolve) => {
    asking.value = {
      wasWrong,
      answer: (key) => {
        asking.value = null;
        pending = null;
        hasDeclined = key === null;
        if (key !== null) sessionStorage.setItem(KEY, key);
        resolve(key);
      },
    };
  });
  return pending;
}

/** Relative to the page, which a proxy may have put behind a prefix. */
function urlOf(path: string): URL {
  return new URL(path, document.baseURI);
}

export interface Ask {
  method?: "GET" | "POST" | "DELETE";
  body?: unknown;
  signal?: AbortSignal;
  /** Whether nobody did something for it. */
  isByItself?: boolean;
}

/** A response that is well; else an `ApiError`, or the `AbortError` of one who gave up. */
export async function request(path: string, { method, body, signal, isByItself = false }: Ask = {}): Promise<Response> {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = new Headers();
    if (key !== null) headers.set("authorization", `Bearer ${key}`);
    if (body !== undefined) headers.set("content-type", "application/json");
    let response: Response;
    try {
      response = await fetch(urlOf(path), {
        method: method ?? (body === undefined ? "GET" : "POST"),
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ?? null,
      });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new ApiError("The server can’t be reached.", 0);
    }
    if (response.ok) return response;
    const error = errorOf(await response.json().catch(() => null), response.status);
    if (response.status !== 401 || (isByItself && hasDeclined)) throw error;
    // Another request may have had one given meanwhile.
    if (sessionStorage.getItem(KEY) === key && (await askForKey(key !== null)) === null) throw error;
    signal?.throwIfAborted();
  }
}

/** The object that a response is. */
export async function json<T>(path: string, ask?: Ask): Promise<T> {
  return (await request(path, ask)).json() as Promise<T>;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** An error in the form of OpenAI's API or of Ollama's. */
export function errorOf(body: unknown, status: number): ApiError {
  const error = (body as { error?: unknown } | null)?.error;
  if (typeof error === "string") return new ApiError(error, status);
  const { message, floor_bytes } = (error ?? {}) as { message?: unknown; floor_bytes?: unknown };
  const text = typeof message === "string" ? message : `The server answered with status ${status}.`;
  return new ApiError(text, status, typeof floor_bytes === "number" ? floor_bytes : null);
}

/** What went wrong, for people. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
