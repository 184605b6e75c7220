/** Numbers for people. */

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"] as const;

/** Bytes in the unit that leaves three digits. */
export function bytes(n: number): string {
  let unit = 0;
  let value = n;
  while (value >= 1000 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits).replace(/\.0+$/, "")} ${UNITS[unit]}`;
}

/** The bytes that a text such as `900 MiB` or `1.5g` means; `null` if it means none. Without a unit, MiB. */
export function parseBytes(text: string): number | null {
  const found = /^\s*(\d+(?:[.,]\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (found === null) return null;
  const value = Number(found[1]?.replace(",", "."));
  const power = { "": 2, k: 1, m: 2, g: 3, t: 4 }[(found[2] ?? "").toLowerCase()] ?? 2;
  return Math.round(value * 1024 ** power);
}

/** A rate, with three digits or so. */
export function rate(n: number): string {
  if (n >= 999.5) return count(Math.round(n));
  return n >= 99.95 ? n.toFixed(0) : n >= 9.995 ? n.toFixed(1) : n.toFixed(2);
}

export function count(n: number): string {
  return n.toLocaleString("en");
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;
}

/** "1 token", "2 tokens". */
export function plural(n: number, one: string): string {
  return `${count(n)} ${one}${n === 1 ? "" : "s"}`;
}
