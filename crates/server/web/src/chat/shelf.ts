/** Where conversations are kept: the browser's database, on this machine alone. */
import type { Conversation } from "./conversation";

/** What a list shows of a conversation. */
export interface Head {
  id: string;
  title: string;
  changed: number;
}

export interface Shelf {
  heads(): Promise<Head[]>;
  get(id: string): Promise<Conversation | undefined>;
  all(): Promise<Conversation[]>;
  put(conversation: Conversation): Promise<void>;
  remove(id: string): Promise<void>;
}

export function headOf({ id, title, changed }: Conversation): Head {
  return { id, title, changed };
}

const NAME = "metallic";
const HEADS = "heads";
const BODIES = "conversations";

/** The browser's database. */
export async function openShelf(): Promise<Shelf> {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore(HEADS, { keyPath: "id" });
    opening.result.createObjectStore(BODIES, { keyPath: "id" });
  };
  const database = await done(opening);
  const read = (store: string) => database.transaction(store).objectStore(store);
  const write = (change: (heads: IDBObjectStore, bodies: IDBObjectStore) => void): Promise<void> => {
    const transaction = database.transaction([HEADS, BODIES], "readwrite");
    change(transaction.objectStore(HEADS), transaction.objectStore(BODIES));
    // At once, since the page may be about to close.
    transaction.commit();
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not keep it"));
    });
  };
  return {
    heads: () => done(read(HEADS).getAll() as IDBRequest<Head[]>),
    get: (id) => done(read(BODIES).get(id) as IDBRequest<Conversation | undefined>),
    all: () => done(read(BODIES).getAll() as IDBRequest<Conversation[]>),
    put: (conversation) =>
      write((heads, bodies) => {
        heads.put(headOf(conversation));
        bodies.put(conversation);
      }),
    remove: (id) =>
      write((heads, bodies) => {
        heads.delete(id);
        bodies.delete(id);
      }),
  };
}

/** For browsers that let the page keep nothing: until it is closed. */
export function memoryShelf(): Shelf {
  const kept = new Map<string, Conversation>();
  return {
    heads: async () => [...kept.values()].map(headOf),
    get: async (id) => kept.get(id),
    all: async () => [...kept.values()],
    put: async (conversation) => void kept.set(conversation.id, conversation),
    remove: async (id) => void kept.delete(id),
  };
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser’s database failed"));
  });
}
