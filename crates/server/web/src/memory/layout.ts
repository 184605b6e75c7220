/** What lies in which memory, and at what scale it is drawn. */
import { KINDS, type Kind, type Plan, type State, type Thing } from "../api/manage";

export const KIND_NAMES: Record<Kind, string> = {
  resident: "Weights that stay",
  swapped: "Weights swapped in",
  kv: "Keys and values",
  slots: "Slots for what is swapped in",
  scratch: "Scratch",
  other: "Other",
};

/** All that a model has in a memory. */
export interface Share {
  model: string;
  things: Thing[];
  bytes: number;
}

export interface TierLayout {
  /** As things name it. */
  key: string;
  name: string;
  /** How much there may be; of a disk nobody says. */
  capacity: number | null;
  used: number;
  shares: Share[];
}

/** A model in the place of which another plan is drawn. */
export interface Instead {
  model: string;
  things: Plan["things"];
}

/** What the server keeps for whoever asks. */
const CLIENTS = "Clients";

/** Every memory with what is in it, now or with another plan for a model. */
export function layout({ ram, vram, models }: State, instead: Instead | null = null): TierLayout[] {
  const main: TierLayout = { key: "ram", name: "RAM", capacity: ram.bytes, used: 0, shares: [] };
  const tiers: TierLayout[] = [
    main,
    ...vram.map(({ name, bytes }, i) => ({ key: `vram${i}`, name, capacity: bytes, used: 0, shares: [] })),
    { key: "disk", name: "Disk", capacity: null, used: 0, shares: [] },
  ];
  if (ram.server) {
    const own: Thing = { name: CLIENTS, kind: "other", tier: "ram", bytes: ram.server };
    main.shares.push({ model: CLIENTS, things: [own], bytes: ram.server });
    main.used += ram.server;
  }
  for (const tier of tiers) {
    for (const { name, things } of models) {
      const planned = name === instead?.model ? instead.things : things;
      const here = planned.filter((thing) => thing.tier === tier.key && thing.bytes > 0);
      if (here.length === 0) continue;
      here.sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind));
      const bytes = here.reduce((sum, thing) => sum + thing.bytes, 0);
      tier.shares.push({ model: name, things: here, bytes });
      tier.used += bytes;
    }
  }
  return tiers.filter(({ capacity, used }) => capacity !== null || used > 0);
}

/** The bytes that the longest bar stands for. */
export function scaleOf(...drawings: TierLayout[][]): number {
  const lengths = drawings.flat().map(({ capacity, used }) => Math.max(capacity ?? 0, used));
  return Math.max(1, ...lengths);
}

/** A row of the table: a thing now, and with another plan. */
export interface Row {
  model: string;
  name: string;
  kind: Kind;
  tier: string;
  now: number;
  then: number | null;
}

/** The same as the drawings, as a table. */
export function rows(now: TierLayout[], then: TierLayout[] | null): Row[] {
  const table = new Map<string, Row>();
  const add = (tiers: TierLayout[], field: "now" | "then") => {
    for (const tier of tiers) {
      for (const { model, things } of tier.shares) {
        for (const { name, kind, bytes } of things) {
          const key = JSON.stringify([model, name, kind, tier.key]);
          const row = table.get(key) ?? { model, name, kind, tier: tier.name, now: 0, then: then && 0 };
          row[field] = (row[field] ?? 0) + bytes;
          table.set(key, row);
        }
      }
    }
  };
  add(now, "now");
  if (then) add(then, "then");
  const places = [...new Set([...now, ...(then ?? [])].map(({ name }) => name))];
  return [...table.values()].sort(
    (a, b) =>
      a.model.localeCompare(b.model) ||
      places.indexOf(a.tier) - places.indexOf(b.tier) ||
      KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind),
  );
}
