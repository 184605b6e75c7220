/** Models and memory, at a server that tells of them. */
import { expect, test } from "./fixtures";
import { FLOOR, manage } from "./state";

test("models are listed, loaded, unloaded and deleted", async ({ app, server }) => {
  manage(server);
  await app.open();
  await app.page.getByRole("link", { name: "Models" }).click();
  const card = (name: string) => app.page.getByRole("listitem", { name });
  await expect(card("mistral-7b-instruct")).toContainText("4.10 GiB");
  await expect(card("broken")).toContainText("blk.3.ffn_down.weight is not in the file");
  await app.button("Load qwen3-4b").click();
  await expect(card("qwen3-4b").getByRole("progressbar")).toHaveAttribute("value", "0.4");
  await app.button("Unload qwen3-4b").click();
  await expect(card("qwen3-4b")).toContainText("Not loaded");
  await app.button("Delete qwen3-4b").click();
  await app.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(card("qwen3-4b")).toBeHidden();
  expect(server.asked.filter(({ what }) => !what.startsWith("GET"))).toEqual([
    { what: "POST /metallic/load", body: { model: "qwen3-4b" } },
    { what: "POST /metallic/unload", body: { model: "qwen3-4b" } },
    { what: "DELETE /api/delete", body: { model: "qwen3-4b" } },
  ]);
  await app.button("Load broken").click();
  await expect(app.page.getByRole("alert")).toContainText("blk.3.ffn_down.weight");
});

test("a download shows how far it is, and why it failed", async ({ app, server }) => {
  manage(server);
  await app.open();
  await app.page.getByRole("link", { name: "Models" }).click();
  const name = app.page.getByLabel("Download a model");
  await name.fill("nowhere");
  await name.press("Enter");
  await expect(app.page.getByRole("alert").filter({ hasText: "no model is called nowhere" })).toBeVisible();
  await name.fill("smollm2");
  await name.press("Enter");
  const download = app.page.getByRole("region", { name: "Download of smollm2" });
  await expect(download).toContainText(/[\d.]+ MiB of 94 MiB/);
  await expect(download).toContainText("Downloaded.");
  await expect(app.button("Load smollm2")).toBeVisible();
});

test("who may not manage sees why", async ({ app, server }) => {
  manage(server, false);
  await app.open();
  await app.page.getByRole("link", { name: "Models" }).click();
  await expect(app.page.getByText("--manage")).toBeVisible();
  await expect(app.page.getByRole("main").getByRole("button")).toHaveCount(0);
  await app.page.getByRole("link", { name: "Memory" }).click();
  await app.page.getByRole("slider").press("PageDown");
  await expect(app.page.getByText(/slower/)).toBeVisible();
  await expect(app.button("Apply")).toHaveCount(0);
});

test("memory is drawn to scale, and the table says the same", async ({ app, server }) => {
  manage(server);
  await app.open();
  await app.page.getByRole("link", { name: "Memory" }).click();
  const now = app.page.getByRole("region", { name: "Now" });
  await expect(now.getByRole("img")).toHaveCount(3);
  const widths = await now.locator(".tier-bar").evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().width));
  // 6 GiB of RAM, 4 of VRAM.
  expect((widths[1] ?? 0) / (widths[0] ?? 1)).toBeCloseTo(4 / 6, 2);
  const parts = await now.locator(".tier-bar").first().locator(".part.kv").boundingBox();
  expect((parts?.width ?? 0) / (widths[0] ?? 1)).toBeCloseTo(0.5 / 6, 2);
  await app.page.getByText("As a table").click();
  const row = app.page.getByRole("row", { name: /mistral.*Keys and values/ });
  await expect(row).toContainText("512 MiB");
  await expect(app.page.getByText("62 %")).toBeVisible();
});

test("another budget is planned, compared and applied", async ({ app, server }) => {
  manage(server);
  await app.open();
  await app.page.getByRole("link", { name: "Memory" }).click();
  const slider = app.page.getByRole("slider", { name: "RAM that mistral-7b-instruct may have" });
  await expect(slider).toHaveAttribute("aria-valuetext", "3 GiB");
  const then = app.page.getByRole("region", { name: /^With/ });
  await slider.press("End");
  await expect(then.getByRole("heading")).toHaveText("With 6 GiB");
  await expect(app.page.getByText(/faster/)).toBeVisible();
  await expect(app.page.getByText(/set by RAM bandwidth/)).toBeVisible();
  // With all of it nothing is on the disk.
  await expect(then.getByRole("img")).toHaveCount(2);
  const amount = app.page.getByLabel("RAM, as a number with its unit");
  await amount.fill("100 MiB");
  await amount.press("Enter");
  await expect(app.page.getByText("needs at least 896 MiB of RAM")).toBeVisible();
  await app.button("Take the least: 896 MiB").click();
  await expect(then.getByRole("heading")).toHaveText("With 896 MiB");
  await app.button("Apply").click();
  await expect(slider).toHaveAttribute("aria-valuetext", "896 MiB");
  await expect(then).toBeHidden();
  expect(server.asked.find(({ what }) => what === "POST /metallic/load")?.body).toEqual({ model: "mistral-7b-instruct", ram: FLOOR });
});

test("a slider that moves on asks for the last place alone", async ({ app, server }) => {
  manage(server);
  await app.open();
  await app.page.getByRole("link", { name: "Memory" }).click();
  const slider = app.page.getByRole("slider");
  await slider.focus();
  for (let i = 0; i < 10; i += 1) await app.page.keyboard.press("ArrowLeft");
  await expect(app.page.getByRole("region", { name: /^With/ })).toBeVisible();
  expect(server.asked.filter(({ what }) => what === "POST /metallic/plan").length).toBeLessThan(4);
});
