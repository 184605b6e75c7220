/** The chat, at a server whose answers are known. */
import { readFile } from "node:fs/promises";

import { expect, test } from "./fixtures";
import { answering, object, words } from "./server";

const CHAT = "POST /v1/chat/completions";

test("an answer comes as Markdown, with what it took", async ({ app, server }) => {
  server.on(CHAT, answering(words("It is **bold**.\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n- [x] done", 20)));
  await app.open();
  await app.say("Hello");
  await app.answered();
  await expect(app.answers.locator("strong")).toHaveText("bold");
  await expect(app.answers.locator("td").nth(1)).toHaveCSS("text-align", "right");
  await expect(app.answers.getByRole("checkbox", { name: "done" })).toBeChecked();
  await expect(app.answers).toContainText(/[\d.]+ tokens\/s · \d+ tokens/);
  expect(server.last(CHAT)).toEqual({
    model: "tiny",
    messages: [{ role: "user", content: "Hello" }],
    stream: true,
    stream_options: { include_usage: true },
  });
  await expect(app.page).toHaveURL(/#\/chat\/[0-9a-f]{32}$/);
});

test("while an answer grows, nothing before it is touched", async ({ app, server }) => {
  await app.open();
  server.on(CHAT, answering(words("An *earlier* answer.")));
  await app.say("One");
  await app.answered();
  server.on(CHAT, answering(words(`First block.\n\n${"word ".repeat(40)}`, 10)));
  await app.say("Two");
  await expect(app.answers.nth(1)).toContainText("First block.");
  const changes = await app.page.evaluate(async () => {
    const messages = [...document.querySelectorAll(".message")];
    const blocks = [...(messages.at(-1)?.querySelectorAll(".block") ?? [])];
    const before = [...messages.slice(0, -1), ...blocks.slice(0, 1)];
    let n = 0;
    const watch = new MutationObserver((changes) => (n += changes.length));
    for (const element of before) watch.observe(element, { subtree: true, childList: true, characterData: true, attributes: true });
    const length = messages.at(-1)?.textContent?.length ?? 0;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return { n, nWatched: before.length, grew: (messages.at(-1)?.textContent?.length ?? 0) > length };
  });
  expect(changes).toEqual({ n: 0, nWatched: 4, grew: true });
  await app.answered();
});

test("an answer that is stopped stays as it is, and the server hears of it", async ({ app, server }) => {
  let isGone = false;
  server.on(CHAT, async (response, body, request) => {
    response.on("close", () => (isGone = true));
    await answering(words("word ".repeat(500), 10))(response, body, request);
  });
  await app.open();
  await app.say("Go on");
  await expect(app.answers).toContainText("word word");
  await app.button("Stop").click();
  await app.answered();
  await expect(app.answers).toContainText("Stopped.");
  await expect(app.answers).toContainText(/about [\d.]+ tokens\/s/);
  await expect.poll(() => isGone).toBe(true);
  const said = await app.answers.locator(".prose").innerText();
  await app.page.reload();
  await expect(app.answers.locator(".prose")).toHaveText(said);
});

test("a page that is closed in the midst keeps what came", async ({ app, server }) => {
  server.on(CHAT, answering(words("word ".repeat(500), 10)));
  await app.open();
  await app.say("Go on");
  await expect(app.answers).toContainText("word word word");
  await app.page.reload();
  await expect(app.answers).toContainText("word word word");
  await expect(app.answers).toContainText("The page was closed before the end.");
});

test("messages and answers have alternatives", async ({ app, server }) => {
  let n = 0;
  server.on(CHAT, (response, body, request) => answering(words(`Answer ${(n += 1)}.`))(response, body, request));
  await app.open();
  await app.say("First");
  await app.answered();
  await app.button("Answer again").click();
  await expect(app.answers).toContainText("Answer 2.");
  await expect(app.answers.locator(".alternatives")).toHaveText("2/2");
  await app.button("The one before").click();
  await expect(app.answers).toContainText("Answer 1.");
  await app.questions.hover();
  await app.button("Edit").click();
  await app.page.getByLabel("Message, anew").fill("Second");
  await app.button("Send").first().click();
  await expect(app.answers).toContainText("Answer 3.");
  await expect(app.questions).toContainText("2/2");
  expect(server.last(CHAT).messages).toEqual([{ role: "user", content: "Second" }]);
  await app.say("More");
  await expect(app.answers.nth(1)).toContainText("Answer 4.");
  expect(server.last(CHAT).messages).toEqual([
    { role: "user", content: "Second" },
    { role: "assistant", content: "Answer 3." },
    { role: "user", content: "More" },
  ]);
  await app.questions.first().getByRole("button", { name: "The one before" }).click();
  await expect(app.answers).toHaveCount(1);
  await expect(app.answers).toContainText("Answer 1.");
  await app.page.reload();
  await expect(app.answers).toContainText("Answer 1.");
  await app.questions.getByRole("button", { name: "The next one" }).click();
  await expect(app.answers.nth(1)).toContainText("Answer 4.");
});

test("reasoning is folded", async ({ app, server }) => {
  server.on(CHAT, answering([{ reasoning_content: "Let me " }, { reasoning_content: "think." }, ...words("So.")]));
  await app.open();
  await app.say("Why?");
  await app.answered();
  await expect(app.page.getByText("Let me think.")).toBeHidden();
  await app.page.getByText("Reasoning", { exact: true }).click();
  await expect(app.page.getByText("Let me think.")).toBeVisible();
});

test("calls of tools are shown, and somebody gives their results", async ({ app, server }) => {
  const call = (index: number, city: string) => ({
    tool_calls: [{ index, id: `call_${city}`, function: { name: "weather", arguments: JSON.stringify({ city }) } }],
  });
  server.on(CHAT, answering([call(0, "Oslo"), call(1, "Rome")], "tool_calls"));
  await app.open();
  await app.button("Settings").click();
  await app.page.getByLabel("Tools").fill('[{"type": "function", "function": {"name": "weather"');
  await expect(app.page.getByText(/This is not JSON/)).toBeVisible();
  await app.page.getByLabel("Tools").fill('[{"type": "function", "function": {"name": "weather", "parameters": {}}}]');
  await app.button("Close").click();
  await app.say("How is it there?");
  await expect(app.page.getByRole("group", { name: "Call of weather" }).first()).toContainText('"city": "Oslo"');
  const results = app.page.getByLabel("Result of weather");
  await results.nth(0).fill("rain");
  await results.nth(1).fill("sun");
  server.on(CHAT, answering(words("Rome is better.")));
  await app.button("Give the results").click();
  await expect(app.answers.nth(1)).toContainText("Rome is better.");
  await expect(app.button("Give the results")).toBeHidden();
  const { messages, tools } = server.last(CHAT);
  expect(tools[0].function.name).toBe("weather");
  expect(messages.slice(1)).toEqual([
    {
      role: "assistant",
      content: "",
      tool_calls: ["Oslo", "Rome"].map((city) => ({
        id: `call_${city}`,
        type: "function",
        function: { name: "weather", arguments: JSON.stringify({ city }) },
      })),
    },
    { role: "tool", tool_call_id: "call_Oslo", content: "rain" },
    { role: "tool", tool_call_id: "call_Rome", content: "sun" },
  ]);
});

test("settings are what the server is asked with, and what is wrong is told", async ({ app, server }) => {
  server.on(CHAT, answering(words("Yes.")));
  await app.open();
  await app.button("Settings").click();
  await app.page.getByLabel("System prompt").fill("Be brief.");
  for (const [name, value] of [["Temperature", "0,5"], ["Top P", "0.9"], ["Top K", "20"], ["Min P", "0.1"], ["Most tokens", "100"], ["Seed", "7"]] as const) {
    await app.page.getByLabel(name).fill(value);
  }
  await app.page.getByLabel("Top K").fill("2.5");
  await expect(app.page.getByLabel("Top K")).toHaveAccessibleDescription("This must be a whole number.");
  await app.page.getByLabel("Top K").fill("20");
  await app.page.keyboard.press("Escape");
  await expect(app.button("Settings")).toBeFocused();
  await app.say("Hello");
  await app.answered();
  const { messages, temperature, top_p, top_k, min_p, max_tokens, seed } = server.last(CHAT);
  expect(messages[0]).toEqual({ role: "system", content: "Be brief." });
  expect({ temperature, top_p, top_k, min_p, max_tokens, seed }).toEqual({
    temperature: 0.5,
    top_p: 0.9,
    top_k: 20,
    min_p: 0.1,
    max_tokens: 100,
    seed: 7,
  });
});

test("a failure is shown where the answer would be, and may be tried again", async ({ app, server }) => {
  server.on(CHAT, (response) => object(response, { error: { message: "too many are waiting" } }, 429));
  await app.open();
  await app.say("Hello");
  await expect(app.page.getByRole("alert")).toContainText("too many are waiting");
  server.on(CHAT, (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end('data: {"choices":[{"delta":{"content":"Half"}}]}\n\ndata: {"error":{"message":"the disk failed"}}\n\n');
  });
  await app.button("Try again").click();
  await expect(app.page.getByRole("alert")).toContainText("the disk failed");
  await expect(app.answers).toContainText("Half");
  server.on(CHAT, (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end('data: {"choices":[{"delta":{"content":"Cut"}}]}\n\n');
  });
  await app.button("Try again").click();
  await expect(app.page.getByRole("alert")).toContainText("ended in the midst");
  server.on(CHAT, answering(words("Whole.")));
  await app.button("Try again").click();
  await expect(app.answers).toContainText("Whole.");
  await expect(app.page.getByRole("alert")).toBeHidden();
  // What said nothing left nothing behind.
  await expect(app.answers.locator(".alternatives")).toHaveText("3/3");
});

test("what a model says is never a script, a form, or a request", async ({ app, server }) => {
  const hostile = [
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "<iframe src='https://evil.example'></iframe><form action='https://evil.example'><button>ok</button></form>",
    "[a](javascript:document.title='owned') [b](data:text/html,<script>1</script>) [c](<https://a.example/\" onclick=\"x>)",
    "![picture](https://evil.example/?stolen)",
    "`<b>` and <svg onload=alert(1)><style>body{display:none}</style>",
    "<details open ontoggle=alert(1)>x</details>",
    "```x\" onclick=\"alert(1)\n<script>alert(1)</script>\n```",
    "<a href='https://ok.example' style='position:fixed'>link</a>",
  ].join("\n\n");
  server.on(CHAT, answering(words(hostile, 1)));
  await app.open();
  await app.say("Attack");
  await app.answered();
  await expect(app.page).toHaveTitle("Chat · Metallic");
  const found = await app.answers.locator(".prose").evaluate((prose) => {
    const all = [...prose.querySelectorAll("*")];
    return {
      tags: [...new Set(all.map(({ tagName }) => tagName))].filter((tag) =>
        ["SCRIPT", "IMG", "IFRAME", "FORM", "SVG", "STYLE", "DETAILS", "OBJECT", "LINK"].includes(tag.toUpperCase()),
      ),
      attributes: all.flatMap((one) => one.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style"),
      addresses: [...prose.querySelectorAll("a")].map((link) => link.getAttribute("href")).filter((href) => href && !/^https?:/.test(href)),
      links: [...prose.querySelectorAll("a[href]")].every((link) => link.getAttribute("rel") === "noopener noreferrer"),
    };
  });
  expect(found).toEqual({ tags: [], attributes: [], addresses: [], links: true });
  await expect(app.answers).toContainText("<script>document.title='owned'</script>");
  await expect(app.page.getByRole("link", { name: "picture" })).toBeVisible();
});

test("code is copied", async ({ app, server, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  server.on(CHAT, answering(words("1. See\n   ```rust\n   fn main() {}\n   ```\n\n```\nplain\n```")));
  await app.open();
  await app.say("Code");
  await app.answered();
  await app.button("Copy the rust code").click();
  await expect(app.page.getByText("Copied")).toBeVisible();
  expect(await app.page.evaluate(() => navigator.clipboard.readText())).toBe("fn main() {}\n");
});

test("conversations are found, renamed, deleted, and kept apart", async ({ app, server }) => {
  server.on(CHAT, answering(words("Yes.")));
  await app.open();
  for (const title of ["About apples", "About pears"]) {
    await app.button("New conversation").click();
    await expect(app.questions).toHaveCount(0);
    await app.say(title);
    await app.answered();
  }
  const links = app.page.getByLabel("Conversations", { exact: true }).getByRole("listitem");
  await expect(links).toHaveText([/About pears/, /About apples/]);
  await app.page.getByLabel("Search the titles").fill("APPLES about");
  await expect(links).toHaveText([/About apples/]);
  await app.page.getByLabel("Search the titles").fill("");
  await app.page.getByRole("link", { name: "About apples" }).click();
  await expect(app.questions).toHaveText(/About apples/);
  await app.button("Rename “About apples”").click();
  await app.page.getByLabel("Title", { exact: true }).fill("Fruit");
  await app.page.keyboard.press("Enter");
  await expect(app.page.getByRole("heading", { name: "Fruit" })).toBeVisible();
  await app.button("Delete “Fruit”").focus();
  await app.page.keyboard.press("Enter");
  await app.page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await expect(links).toHaveCount(2);
  await app.button("Delete “Fruit”").focus();
  await app.page.keyboard.press("Enter");
  await app.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(links).toHaveText([/About pears/]);
  await expect(app.page.getByRole("heading", { name: "New conversation" })).toBeVisible();
  await app.page.reload();
  await expect(links).toHaveText([/About pears/]);
});

test("conversations leave as a file and come back", async ({ app, server }, info) => {
  let n = 0;
  server.on(CHAT, (response, body, request) => answering(words(`Answer ${(n += 1)}.`))(response, body, request));
  await app.open();
  await app.say("Keep me");
  await app.answered();
  await app.button("Answer again").click();
  await expect(app.answers).toContainText("Answer 2.");
  await app.answered();
  const saving = app.page.waitForEvent("download");
  await app.button("Export").click();
  const path = info.outputPath("conversations.json");
  await (await saving).saveAs(path);
  const file = JSON.parse(await readFile(path, "utf8"));
  expect(file.conversations[0].messages.map(({ content }: { content: string }) => content)).toEqual([
    "Keep me",
    "Answer 1.",
    "Answer 2.",
  ]);
  await app.button("Delete “Keep me”").focus();
  await app.page.keyboard.press("Enter");
  await app.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(app.page.getByText("Conversations will be listed here.")).toBeVisible();
  await app.page.getByLabel("File of conversations").setInputFiles(path);
  await app.page.getByRole("link", { name: "Keep me" }).click();
  await expect(app.answers).toContainText("Answer 2.");
  await expect(app.answers.locator(".alternatives")).toHaveText("2/2");
  const wrong = { name: "wrong.json", mimeType: "application/json", buffer: Buffer.from('{"format":"other"}') };
  await app.page.getByLabel("File of conversations").setInputFiles(wrong);
  await expect(app.page.getByText(/Nothing was imported/)).toBeVisible();
});

test("the model that is chosen is asked", async ({ app, server }) => {
  server.on("GET /v1/models", (response) => object(response, { data: [{ id: "tiny" }, { id: "other" }] }));
  server.on(CHAT, answering(words("Yes.")));
  await app.open();
  await app.page.getByLabel("Model").selectOption("other");
  await app.say("Hello");
  await app.answered();
  expect(server.last(CHAT).model).toBe("other");
});

test("a server with a key is asked with it, once somebody gave it", async ({ app, server }) => {
  server.key = "secret";
  server.on(CHAT, answering(words("Welcome.")));
  await app.open();
  const field = app.page.getByRole("textbox", { name: "Key" });
  await field.fill("wrong");
  await field.press("Enter");
  await expect(app.page.getByText("That key is not one of the server’s.")).toBeVisible();
  await field.fill("secret");
  await field.press("Enter");
  await expect(app.page.getByRole("dialog")).toBeHidden();
  await app.say("Hello");
  await expect(app.answers).toContainText("Welcome.");
  await app.answered();
  await app.page.reload();
  await expect(app.answers).toContainText("Welcome.");
  await expect(app.page.getByRole("dialog")).toBeHidden();
  expect(await app.page.evaluate(() => JSON.stringify(localStorage))).not.toContain("secret");
});

test("who gives no key isn't asked again until they ask something", async ({ app, server }) => {
  server.key = "secret";
  await app.open();
  await app.page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await app.page.getByRole("button", { name: "Settings" }).click();
  await app.page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await app.say("Hello");
  await expect(app.page.getByRole("textbox", { name: "Key" })).toBeVisible();
  await app.page.keyboard.press("Escape");
  await expect(app.page.getByRole("alert")).toContainText("no key");
});

test("a server of another machine, over plain HTTP, is no less", async ({ app, server, page }) => {
  server.on(CHAT, answering(words("```\nplain\n```")));
  const url = server.url.replace("127.0.0.1", "metallic.test");
  server.url = url;
  await app.open();
  expect(await page.evaluate(() => isSecureContext)).toBe(false);
  await app.say("Hello");
  await app.answered();
  await app.button("Copy the code").click();
  await expect(page.getByText("Copied")).toBeVisible();
  await app.box.fill("");
  await app.box.press("Control+v");
  await expect(app.box).toHaveValue("plain\n");
});

test("a server without models to manage has a chat alone", async ({ app }) => {
  await app.open();
  await expect(app.page.getByRole("navigation", { name: "Views" })).toBeHidden();
});
