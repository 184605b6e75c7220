/** The parts that need no browser. */
import { expect, test } from "@playwright/test";

import { eventsOf, linesOf } from "../src/api/lines";
import { exported, imported } from "../src/chat/archive";
import { apiMessages, type Message, newConversation, NO_SETTINGS, shown, titleOf, withMessage } from "../src/chat/conversation";
import { asked, wrongNumber } from "../src/chat/settings";
import { layout, rows, scaleOf } from "../src/memory/layout";
import { bytes, parseBytes, percent, rate } from "../src/units";

function stream(...pieces: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

async function all(texts: AsyncGenerator<string>): Promise<string[]> {
  const found = [];
  for await (const text of texts) found.push(text);
  return found;
}

test("lines and events are the same wherever a body is cut", async () => {
  const body = new TextEncoder().encode(": life\n\ndata: é1\r\n\r\ndata:two\ndata: lines\n\nevent: x\n\ndata: last\n\n");
  for (let at = 0; at <= body.length; at += 1) {
    const cut = () => stream(body.slice(0, at), body.slice(at));
    expect(await all(eventsOf(cut())), `cut at ${at}`).toEqual(["é1", "two\nlines", "last"]);
    expect((await all(linesOf(cut()))).length, `cut at ${at}`).toBe(11);
  }
  expect(await all(linesOf(stream(new TextEncoder().encode("a\nb"))))).toEqual(["a", "b"]);
});

test("sizes are read as they are written", () => {
  for (const [n, text] of [
    [0, "0 bytes"],
    [999, "999 bytes"],
    [1024, "1 KiB"],
    [900 * 2 ** 20, "900 MiB"],
    [1000 * 2 ** 20, "0.98 GiB"],
    [1.5 * 2 ** 30, "1.50 GiB"],
    [64 * 2 ** 30, "64 GiB"],
  ] as const) {
    expect(bytes(n)).toBe(text);
    if (n >= 1024) expect(Math.abs((parseBytes(text) ?? 0) / n - 1), text).toBeLessThan(0.01);
  }
  expect(["900", "1.5g", "1,5 GB", "2 TiB", "", "x", "1 PiB", "-1"].map(parseBytes)).toEqual([
    900 * 2 ** 20,
    1.5 * 2 ** 30,
    1.5 * 2 ** 30,
    2 * 2 ** 40,
    null,
    null,
    null,
    null,
  ]);
  expect([0.5, 9.996, 12.34, 123.4, 1234.5].map(rate)).toEqual(["0.50", "10.0", "12.3", "123", "1,235"]);
  expect([0, 0.034, 0.5, 1].map(percent)).toEqual(["0 %", "3.4 %", "50 %", "100 %"]);
});

const message = (id: string, parent: string, role: Message["role"] = "user"): Message => ({ id, parent, role, content: id });

test("of alternatives the chosen one is shown, or the last", () => {
  let conversation = newConversation("tiny", NO_SETTINGS);
  for (const [id, parent] of [["a", ""], ["b", "a"], ["c", "b"], ["d", "a"]] as const) {
    conversation = withMessage(conversation, message(id, parent));
  }
  const ids = () => shown(conversation).map(({ id }) => id);
  expect(ids()).toEqual(["a", "d"]);
  conversation = { ...conversation, chosen: { ...conversation.chosen, a: "b" } };
  expect(ids()).toEqual(["a", "b", "c"]);
  conversation = { ...conversation, chosen: { ...conversation.chosen, a: "gone" } };
  expect(ids()).toEqual(["a", "d"]);
});

test("an answer that says nothing isn't told to the model", () => {
  const path: Message[] = [
    message("a", ""),
    { ...message("b", "a", "assistant"), content: "", error: "failed" },
    { ...message("c", "b", "assistant"), reasoning: "hm" },
  ];
  expect(apiMessages({ ...NO_SETTINGS, system: "s" }, path)).toEqual([
    { role: "system", content: "s" },
    { role: "user", content: "a" },
    { role: "assistant", content: "c", reasoning_content: "hm" },
  ]);
});

test("a title is the first line, cut between letters", () => {
  expect(titleOf("  One\nTwo")).toBe("One");
  expect(titleOf("🙂".repeat(70))).toBe(`${"🙂".repeat(59)}…`);
});

test("what is wrong among the settings is told and left out", () => {
  const settings = { ...NO_SETTINGS, temperature: "0,7", top_k: "1.5", top_p: "2", seed: "x", max_tokens: "0", tools: "{}" };
  expect(asked(settings)).toEqual({ temperature: 0.7 });
  expect(wrongNumber("top_p", "2")).toBe("This must be at most 1.");
  expect(wrongNumber("seed", "x")).toBe("This is no number.");
  expect(wrongNumber("max_tokens", "0")).toBe("This must be at least 1.");
});

test("a file that is wrong is refused with the place", () => {
  let conversation = newConversation("tiny", NO_SETTINGS);
  conversation = withMessage(withMessage(conversation, message("a", "")), message("b", "a", "assistant"));
  const file = JSON.parse(exported([conversation]));
  const again = imported(JSON.stringify(file))[0];
  expect({ ...again, id: conversation.id }).toEqual(conversation);
  expect(again?.id).not.toBe(conversation.id);
  for (const [change, error] of [
    [(file: any) => (file.format = "x"), /no file of conversations/],
    [(file: any) => (file.version = 2), /Version 2/],
    [(file: any) => (file.conversations = {}), /conversations must be an array/],
    [(file: any) => (file.conversations[0].title = 1), /conversations\[0\].title must be a text/],
    [(file: any) => (file.conversations[0].messages[1].parent = "z"), /messages\[1\] follows none/],
    [(file: any) => (file.conversations[0].messages[0].parent = "a"), /messages\[0\] follows none/],
    [(file: any) => (file.conversations[0].messages[1].id = "a"), /messages\[1\] has the name of another/],
    [(file: any) => (file.conversations[0].messages[0].role = "system"), /role is not known/],
    [(file: any) => (file.conversations[0].messages[0].calls = [{ id: 1 }]), /calls\[0\].id must be a text/],
  ] as const) {
    const wrong = structuredClone(file);
    change(wrong);
    expect(() => imported(JSON.stringify(wrong)), String(error)).toThrow(error);
  }
  expect(() => imported("{")).toThrow(/not JSON/);
});

test("a layout has every byte once, in the table as well", () => {
  const model = (name: string, things: [string, string, number][]) => ({
    name,
    things: things.map(([kind, tier, n]) => ({ name: kind, kind, tier, bytes: n })),
  });
  const state = {
    ram: { bytes: 100, used: 0 },
    vram: [{ name: "GPU", bytes: 50, used: 0 }],
    models: [
      model("a", [["kv", "ram", 10], ["resident", "ram", 60], ["swapped", "disk", 120], ["resident", "vram0", 5]]),
      model("b", [["resident", "ram", 20], ["scratch", "ram", 0]]),
    ],
  } as any;
  const now = layout(state);
  expect(now.map(({ name, used }) => [name, used])).toEqual([["RAM", 90], ["GPU", 5], ["Disk", 120]]);
  expect(now[0]?.shares[0]?.things.map(({ kind }) => kind)).toEqual(["resident", "kv"]);
  expect(scaleOf(now)).toBe(120);
  const then = layout(state, { model: "a", things: [{ name: "resident", kind: "resident", tier: "ram", bytes: 80 }] });
  expect(then.map(({ name, used }) => [name, used])).toEqual([["RAM", 100], ["GPU", 0]]);
  const table = rows(now, then);
  expect(table.reduce((sum, row) => sum + row.now, 0)).toBe(215);
  expect(table.reduce((sum, row) => sum + (row.then ?? 0), 0)).toBe(100);
});
