/** Who uses the page otherwise: with a keyboard, a screen reader, on a phone, in the dark. */
import { createRequire } from "node:module";

import { expect, test } from "./fixtures";
import { answering, words } from "./server";
import { manage } from "./state";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const ANSWER = "Some **text** with `code`, [a link](https://a.example) and a table:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```rust\nfn main() {}\n```";
const LONG = `${"unbroken".repeat(40)}\n\n\`\`\`\n${"long line ".repeat(40)}\n\`\`\`\n\n| ${"wide column | ".repeat(12)}\n|${"---|".repeat(12)}\n|${" cell |".repeat(12)}`;

declare global {
  interface Window {
    axe: { run(options: object): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> };
  }
}

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing wrong, ${colorScheme}`, async ({ app, server, page }) => {
    manage(server);
    server.on("POST /v1/chat/completions", answering([{ reasoning_content: "Hm." }, ...words(ANSWER)]));
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.addInitScript({ path: AXE });
    const check = async (what: string) => {
      const violations = await page.evaluate(async () => (await window.axe.run({ resultTypes: ["violations"] })).violations);
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`);
      expect(told, what).toEqual([]);
    };
    await app.open();
    await check("an empty chat");
    await app.say("Hello");
    await app.answered();
    await app.button("Answer again").click();
    await app.answered();
    await page.getByText("Reasoning", { exact: true }).click();
    await check("a chat");
    await app.button("Settings").click();
    await check("the settings");
    await app.button("Close").click();
    await page.getByRole("link", { name: "Models" }).click();
    await page.getByLabel("Download a model").fill("nowhere");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("alert").first()).toBeVisible();
    await check("the models");
    await app.button("Delete qwen3-4b").click();
    await check("a question");
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "Memory" }).click();
    await page.getByRole("slider").press("PageDown");
    await expect(page.getByRole("region", { name: /^With/ })).toBeVisible();
    await page.getByText("As a table").click();
    await check("the memory");
  });
}

test("a phone's width is enough for all views", async ({ app, server, page }) => {
  await page.setViewportSize({ width: 320, height: 640 });
  manage(server);
  server.on("POST /v1/chat/completions", answering(words(LONG)));
  await app.open();
  const check = async () => {
    const tooWide = await page.evaluate(() => {
      const scrolled = [document.documentElement, ...document.querySelectorAll("main, .log, dialog, .settings")];
      return scrolled.filter((one) => one.scrollWidth > one.clientWidth).map((one) => `${one.tagName}.${one.className}`);
    });
    expect(tooWide).toEqual([]);
  };
  await app.box.fill("unbroken".repeat(40));
  await app.button("Send").click();
  await app.answered();
  await check();
  await app.button("Settings").click();
  await check();
  await app.button("Close").click();
  await app.page.getByRole("button", { name: "Conversations" }).click();
  await check();
  await app.page.getByRole("dialog").getByRole("link").click();
  await app.button("Close").click();
  for (const view of ["Models", "Memory"]) {
    await page.getByRole("link", { name: view }).click();
    await expect(page.getByRole("heading", { name: view })).toBeVisible();
    await check();
  }
  await page.getByRole("slider").press("PageDown");
  await page.getByText("As a table").click();
  await expect(page.getByRole("region", { name: /^With/ })).toBeVisible();
  await check();
});

test("a keyboard is enough", async ({ app, server, page }) => {
  manage(server);
  server.on("POST /v1/chat/completions", answering(words("word ".repeat(300), 10)));
  await app.open();
  await expect(app.box).toBeFocused();
  const press = async (...keys: string[]) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  /** Goes on by Tab, or back by Shift+Tab, to what has this name. */
  const reach = async (name: string | RegExp, back = false) => {
    const target = page.locator(":focus").and(page.getByRole("button", { name }).or(page.getByRole("link", { name })).or(page.getByRole("slider", { name })));
    for (let i = 0; i < 60; i += 1) {
      if ((await target.count()) > 0) return;
      await page.keyboard.press(back ? "Shift+Tab" : "Tab");
    }
    throw new Error(`no key leads to ${name}`);
  };
  await page.keyboard.type("A line");
  await press("Shift+Enter");
  await page.keyboard.type("and another");
  await press("Enter");
  await expect(app.questions).toContainText("A line\nand another");
  await expect(app.answers).toContainText("word word");
  await press("Escape");
  await expect(app.answers).toContainText("Stopped.");
  server.on("POST /v1/chat/completions", answering(words("Done.")));
  await reach("Edit", true);
  await press("Enter");
  await page.keyboard.type(", changed");
  await press("Control+Enter");
  await expect(app.answers).toContainText("Done.");
  await expect(app.questions).toContainText("changed");
  await reach("Memory", true);
  await press("Enter");
  await reach(/^RAM that/);
  await press("ArrowLeft");
  await expect(page.getByRole("region", { name: /^With/ })).toBeVisible();
  await reach("Apply");
  await press("Enter");
  await expect(page.getByRole("region", { name: /^With/ })).toBeHidden();
  await page.reload();
  await expect(page.getByRole("heading", { name: "Memory" })).toBeVisible();
  await press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await press("Enter");
  await expect(page.getByRole("main")).toBeFocused();
});
