/** Names that nothing else has. `crypto.randomUUID` would do, but over plain HTTP browsers have it for this machine's servers alone. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
