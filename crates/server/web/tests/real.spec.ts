/**
 * The page at `metallic serve` with a small model. The program is `METALLIC_BINARY`, or the release build; models are in
 * `METALLIC_MODELS`, or in `target/models`. Where they are not, these skip; with CI=true they fail.
 */
import { type ChildProcess, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

import { expect, type Page, test } from "@playwright/test";

import { realServer } from "./server";

const ROOT = "../../..";
const BINARY = process.env.METALLIC_BINARY ?? `${ROOT}/target/release/metallic`;
const MODEL = `${process.env.METALLIC_MODELS ?? `${ROOT}/target/models`}/SmolLM2-135M-Instruct.Q4_1.gguf`;
/** An answer's length, where it is compared. */
const N_TOKENS = 16;
const isThere = existsSync(BINARY) && existsSync(MODEL);

test.skip(!isThere && process.env.CI !== "true", `no ${BINARY}, or no ${MODEL}`);

let server: { url: string; process: ChildProcess };

async function served(flags: string[], use: () => Promise<void>): Promise<void> {
  server = await realServer(BINARY, MODEL, flags);
  try {
    await use();
  } finally {
    server.process.kill();
  }
}

const box = (page: Page) => page.getByRole("textbox", { name: "Message", exact: true });
const answers = (page: Page) => page.getByRole("article", { name: "Answer" });
const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });

async function say(page: Page, text: string): Promise<void> {
  await box(page).fill(text);
  await box(page).press("Enter");
}

/** What the command itself says to a question, always taking the likeliest token. */
function expected(question: string): string {
  const args = ["run", "-m", MODEL, "--quiet", "--temp", "0", "-n", String(N_TOKENS), "-c", "1024", question];
  return execFileSync(BINARY, args, { encoding: "utf8" }).trim();
}

test("a conversation with a model: answered, stopped, kept, changed", async ({ page }) => {
  await served([], async () => {
    const wrong: string[] = [];
    page.on("pageerror", (error) => wrong.push(error.message));
    await page.goto(server.url);
    await button(page, "Settings").click();
    await page.getByLabel("Temperature").fill("0");
    await page.getByLabel("Most tokens").fill(String(N_TOKENS));
    await page.keyboard.press("Escape");
    const [france, italy] = ["France", "Italy"].map((country) => `What is the capital of ${country}?`) as [string, string];
    await say(page, france);
    await expect(answers(page)).toContainText(`tokens/s · ${N_TOKENS} tokens`, { timeout: 60_000 });
    await expect(answers(page).locator(".prose")).toHaveText(expected(france));
    await page.screenshot({ path: `${ROOT}/target/page/real-chat.png` });

    await button(page, "Settings").click();
    await page.getByLabel("Most tokens").fill("");
    await page.keyboard.press("Escape");
    // Without a limit this model goes on and on.
    await button(page, "Answer again").click();
    await expect(answers(page).locator(".prose")).toContainText(expected(france), { timeout: 60_000 });
    await button(page, "Stop").click();
    await expect(answers(page)).toContainText("Stopped.");
    const said = await answers(page).locator(".prose").innerText();
    // What nobody hears is not gone on with.
    const open = async () => /metallic_requests\{.*\} (\d+)/.exec(await (await fetch(`${server.url}metrics`)).text())?.[1];
    await expect.poll(open).toBe("0");

    await page.reload();
    await expect(answers(page).locator(".prose")).toHaveText(said);
    await expect(answers(page).locator(".alternatives")).toHaveText("2/2");
    await button(page, "Settings").click();
    await page.getByLabel("Most tokens").fill(String(N_TOKENS));
    await page.keyboard.press("Escape");
    await page.getByRole("article", { name: "You" }).hover();
    await button(page, "Edit").click();
    await page.getByLabel("Message, anew").fill(italy);
    await page.getByRole("form", { name: "Edit the message" }).getByRole("button", { name: "Send" }).click();
    await expect(answers(page)).toContainText(`${N_TOKENS} tokens`, { timeout: 60_000 });
    await expect(answers(page).locator(".prose")).toHaveText(expected(italy));
    await expect(page.getByRole("article", { name: "You" })).toContainText("2/2");
    await page.getByRole("article", { name: "You" }).getByRole("button", { name: "The one before" }).click();
    await expect(answers(page).locator(".prose")).toHaveText(said);
    await answers(page).getByRole("button", { name: "The one before" }).click();
    await expect(answers(page).locator(".prose")).toHaveText(expected(france));
    expect(wrong).toEqual([]);
  });
});

test("a server with a key has the page ask for it", async ({ page }) => {
  await served(["--api-key", "secret"], async () => {
    await page.goto(server.url);
    await page.getByRole("textbox", { name: "Key" }).fill("secret");
    await page.keyboard.press("Enter");
    await expect(page.getByRole("combobox", { name: "Model" })).toHaveValue("smollm2");
  });
});

test("a refusal is the server's own words", async ({ page }) => {
  await served([], async () => {
    await page.goto(server.url);
    await say(page, "word ".repeat(2000));
    await expect(page.getByRole("alert")).toContainText("tokens");
    await expect(button(page, "Try again")).toBeVisible();
  });
});

test("--no-web leaves the page out", async ({ page }) => {
  await served(["--no-web"], async () => {
    const response = await page.goto(server.url);
    expect(await response?.text()).toBe("Metallic is running");
  });
});

test("memory at two budgets, the second of which is applied", async ({ page }) => {
  await served(["--manage", "--ram", "600MiB"], async () => {
    await page.goto(`${server.url}#/memory`);
    const now = page.getByRole("region", { name: "Now" });
    const then = page.getByRole("region", { name: /^With/ });
    // All of it fits.
    await expect(now.getByRole("img")).toHaveCount(1);
    await page.screenshot({ path: `${ROOT}/target/page/real-memory.png`, fullPage: true });
    const amount = page.getByLabel("RAM, as a number with its unit");
    await amount.fill("1 MiB");
    await amount.press("Enter");
    await expect(page.getByRole("button", { name: /^Take the least/ })).toBeVisible({ timeout: 20_000 });
    await amount.fill("120 MiB");
    await amount.press("Enter");
    await expect(then.getByRole("heading")).toHaveText("With 120 MiB", { timeout: 20_000 });
    // The rest is read from the disk.
    await expect(then.getByRole("img")).toHaveCount(2);
    await expect(page.getByText(/tokens\/s predicted/)).toBeVisible();
    await button(page, "Apply").click();
    await expect(then).toBeHidden({ timeout: 20_000 });
    await expect(now.getByRole("img")).toHaveCount(2);
    await page.screenshot({ path: `${ROOT}/target/page/real-memory-less.png`, fullPage: true });
    const state = (await (await fetch(`${server.url}metallic/state`)).json()) as { models: { ram_bytes: number }[] };
    expect(state.models[0]?.ram_bytes).toBeLessThanOrEqual(120 * 2 ** 20);
  });
});
