/** A server's state as the endpoints of `/metallic` tell it, and plans for other budgets. */
import type { Endpoint, FakeServer } from "./server";
import { object } from "./server";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** A model of 4.1 GiB, of whose weights as many stay as there is room for. */
function plan(ram: number) {
  const weights = 4.1 * GIB;
  const rest = 512 * MIB + 96 * MIB + 64 * MIB;
  const stays = Math.min(weights, ram - rest - 128 * MIB);
  const swapped = weights - stays;
  const things = [
    { name: "blocks", kind: "resident", tier: "ram", bytes: stays },
    { name: "keys and values", kind: "kv", tier: "ram", bytes: 512 * MIB },
    { name: "activations", kind: "scratch", tier: "ram", bytes: 96 * MIB },
    { name: "vocabulary", kind: "other", tier: "ram", bytes: 64 * MIB },
  ];
  if (swapped > 0) {
    things.push({ name: "slots", kind: "slots", tier: "ram", bytes: 128 * MIB });
    things.push({ name: "blocks", kind: "swapped", tier: "disk", bytes: swapped });
  }
  const seconds = stays / (34 * GIB) + swapped / (1.6 * GIB);
  const predicted = { generation: 1 / seconds, prompt: 84, bound: swapped > 0 ? "disk" : "RAM bandwidth" };
  return { things, n_ctx: 8192, predicted };
}

export const FLOOR = 896 * MIB;
const PRESENT = 3 * GIB;

function loaded(name: string, ram: number) {
  const { things, predicted } = plan(ram);
  return {
    name,
    state: "loaded",
    error: null,
    progress: null,
    file_bytes: 4.1 * GIB,
    n_ctx: 8192,
    n_parallel: 2,
    n_open: 0,
    ram_bytes: ram,
    things,
    rates: { generation: predicted.generation * 0.97, prompt: 81.3, bytes_per_token: 4.1 * GIB, wait_share: 0.62 },
    predicted,
  };
}

function other(name: string, more: object) {
  const rates = { generation: null, prompt: null, bytes_per_token: 241 * MIB, wait_share: null };
  const nothing = { error: null, progress: null, n_ctx: null, n_parallel: null, n_open: 0, ram_bytes: null };
  return { name, state: "unloaded", ...nothing, file_bytes: 241 * MIB, things: [], rates, predicted: null, ...more };
}

const SMALL = {
  state: "loaded",
  n_ctx: 2048,
  n_parallel: 1,
  ram_bytes: 512 * MIB,
  things: [
    { name: "blocks", kind: "resident", tier: "vram0", bytes: 180 * MIB },
    { name: "embedding", kind: "resident", tier: "ram", bytes: 61 * MIB },
    { name: "keys and values", kind: "kv", tier: "vram0", bytes: 36 * MIB },
    { name: "activations", kind: "scratch", tier: "vram0", bytes: 12 * MIB },
  ],
  rates: { generation: 212, prompt: 4100, bytes_per_token: 241 * MIB, wait_share: 0 },
  predicted: { generation: 230, prompt: 4000, bound: "VRAM bandwidth" },
};

export function manage(server: FakeServer, canManage = true) {
  let ram = PRESENT;
  const models = new Map<string, object>([
    ["gemma-3-270m", other("gemma-3-270m", SMALL)],
    ["qwen3-4b", other("qwen3-4b", { file_bytes: 2.3 * GIB })],
    ["broken", other("broken", { state: "failed", error: "blk.3.ffn_down.weight is not in the file" })],
  ]);
  server.on("GET /metallic/state", (response) =>
    object(response, {
      version: "0.1.0",
      can_manage: canManage,
      ram: { bytes: 6 * GIB, used: ram },
      vram: [{ name: "Radeon RX 6400", bytes: 4 * GIB, used: 228 * MIB }],
      models: [loaded("mistral-7b-instruct", ram), ...models.values()],
    }),
  );
  server.on("POST /metallic/plan", (response, body) => {
    if (body.ram < FLOOR) {
      object(response, { error: { message: "mistral-7b-instruct needs at least 896 MiB of RAM", floor_bytes: FLOOR } }, 422);
    } else object(response, plan(body.ram));
  });
  const load: Endpoint = async (response, body) => {
    if (body.model === "broken") {
      object(response, { error: { message: "blk.3.ffn_down.weight is not in the file" } }, 422);
      return;
    }
    if (body.ram) ram = body.ram;
    else models.set(body.model, other(body.model, { state: "loading", progress: 0.4 }));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    if (!body.ram) models.set(body.model, other(body.model, { state: "loaded", n_ctx: 4096, n_parallel: 1, ram_bytes: GIB }));
    object(response, {});
  };
  server.on("POST /metallic/load", load);
  server.on("POST /metallic/unload", (response, body) => {
    models.set(body.model, other(body.model, {}));
    object(response, {});
  });
  server.on("DELETE /api/delete", (response, body) => {
    models.delete(body.model);
    object(response, {});
  });
  server.on("POST /api/pull", async (response, body) => {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    if (body.model === "nowhere") {
      response.end('{"status":"asking"}\n{"error":"no model is called nowhere"}\n');
      return;
    }
    const total = 94 * MIB;
    response.write('{"status":"asking"}\n');
    for (let i = 1; i <= 20; i += 1) {
      response.write(`${JSON.stringify({ status: "downloading", digest: "sha256:0", total, completed: (total * i) / 20 })}\n`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    models.set(body.model, other(body.model, {}));
    response.end('{"status":"success"}\n');
  });
}
