/** What is being done with models, each with what became of it. */
import { signal } from "@preact/signals";

import { isAbort, messageOf } from "../api/http";
import { load, type Model, type Progress, pull, remove, unload } from "../api/manage";
import { readNames, readState } from "../server";
import { confirm } from "../ui/dialog";
import { announce } from "../ui/notice";

/** By model: what is being done, or why it failed. */
export const doing = signal<ReadonlyMap<string, { verb: string; error: string | null }>>(new Map());

function set(name: string, what: { verb: string; error: string | null } | null): void {
  const next = new Map(doing.peek());
  if (what) next.set(name, what);
  else next.delete(name);
  doing.value = next;
}

/** Does it, and says how it went where the model is shown. Whether it went well. */
async function attempt(name: string, verb: string, past: string, action: () => Promise<void>): Promise<boolean> {
  if (doing.peek().get(name)?.error === null) return false;
  set(name, { verb, error: null });
  announce(`${verb} ${name}…`);
  // So that a load is seen to have begun.
  setTimeout(() => void readState(), 200);
  try {
    await action();
    set(name, null);
    announce(`${name} is ${past}.`);
    return true;
  } catch (error) {
    set(name, { verb, error: messageOf(error) });
    return false;
  } finally {
    await readState();
    void readNames();
  }
}

/** Loads a model, anew if it is there, which ends its answers. */
export async function loadModel(model: Model, ram?: number): Promise<boolean> {
  if (model.state === "loaded" && !(await mayEnd(model, `Load ${model.name} anew?`, "Load"))) return false;
  return attempt(model.name, "Loading", "loaded", () => load(model.name, ram));
}

export async function unloadModel(model: Model): Promise<void> {
  if (!(await mayEnd(model, `Unload ${model.name}?`, "Unload"))) return;
  await attempt(model.name, "Unloading", "unloaded", () => unload(model.name));
}

export async function deleteModel(model: Model): Promise<void> {
  const text = `${model.name} will be gone from this server’s disk. To have it again it must be downloaded.`;
  if (!(await confirm("Delete this model?", text, "Delete"))) return;
  await attempt(model.name, "Deleting", "deleted", () => remove(model.name));
}

/** Whether answers that are being made may be ended. */
async function mayEnd({ n_open }: Model, title: string, action: string): Promise<boolean> {
  if (n_open === 0) return true;
  const text = n_open === 1 ? "One answer is being made and will end." : `${n_open} answers are being made and will end.`;
  return confirm(title, text, action);
}

/** A download, until it is put away. */
export interface Download {
  name: string;
  progress: Progress;
  /** `null` while it goes on. */
  end: "done" | "stopped" | "failed" | null;
  error: string | null;
  stop: () => void;
}

export const downloads = signal<readonly Download[]>([]);

export function putAway(name: string): void {
  downloads.value = downloads.peek().filter((download) => download.name !== name);
}

/** Downloads a model, and says how far it is. */
export async function download(name: string): Promise<void> {
  if (downloads.peek().some((other) => other.name === name && other.end === null)) return;
  putAway(name);
  const controller = new AbortController();
  const update = (change: Partial<Download>) => {
    downloads.value = downloads.peek().map((one) => (one.name === name ? { ...one, ...change } : one));
  };
  const progress: Progress = { status: "asking", total: null, completed: null };
  downloads.value = [...downloads.peek(), { name, progress, end: null, error: null, stop: () => controller.abort() }];
  try {
    for await (const progress of pull(name, controller.signal)) update({ progress });
    update({ end: "done" });
    announce(`${name} is downloaded.`);
  } catch (error) {
    update(isAbort(error) ? { end: "stopped" } : { end: "failed", error: messageOf(error) });
  }
  await readState();
  void readNames();
}
