/** A page at a server whose answers the test writes. A script that fails anywhere fails the test. */
import { test as base, expect, type Locator, type Page } from "@playwright/test";

import { FakeServer } from "./server";

export const test = base.extend<{ server: FakeServer; app: App }>({
  server: async ({}, use) => {
    const server = await new FakeServer().start();
    await use(server);
    server.stop();
  },
  app: async ({ page, server }, use) => {
    const wrong: string[] = [];
    page.on("pageerror", (error) => wrong.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
    });
    page.on("request", (request) => {
      if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(server.url)) wrong.push(`asked for ${request.url()}`);
    });
    await use(new App(page, server));
    expect(wrong).toEqual([]);
  },
});

export { expect };

/** What somebody does with the page. */
export class App {
  constructor(
    readonly page: Page,
    readonly server: FakeServer,
  ) {}

  async open(): Promise<void> {
    await this.page.goto(this.server.url);
    await expect(this.box).toBeVisible();
  }

  get box(): Locator {
    return this.page.getByRole("textbox", { name: "Message", exact: true });
  }

  get answers(): Locator {
    return this.page.getByRole("article", { name: "Answer" });
  }

  get questions(): Locator {
    return this.page.getByRole("article", { name: "You" });
  }

  button(name: string): Locator {
    return this.page.getByRole("button", { name, exact: true });
  }

  async say(text: string): Promise<void> {
    await this.box.fill(text);
    await this.box.press("Enter");
  }

  /** Until nothing is being answered. */
  async answered(): Promise<void> {
    await expect(this.button("Send")).toBeVisible();
  }
}
