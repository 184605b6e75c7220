/** Pictures of the views, for people to look at. */
import { test } from "@playwright/test";

import { answering, FakeServer, words } from "./server";
import { manage } from "./state";

const ANSWER = `Under a budget, the weights that stay are read once; the others are **swapped in**, a chunk at a time, while the chunk before is being used.

## What bounds the rate

1. Weights in memory are read at the memory's bandwidth.
2. Weights on the disk are read at the disk's, which is some *twenty times* less.

| place | GB/s | share of a token |
|---|---:|---:|
| RAM | 34 | 38 % |
| disk | 1.6 | 62 % |

\`\`\`rust
fn rate(resident: f64, swapped: f64) -> f64 {
    1.0 / (resident / 34e9 + swapped / 1.6e9)
}
\`\`\`

So with \`--ram 3GiB\` this model gives about 1.4 tokens a second.`;

for (const scheme of ["light", "dark"] as const) {
  for (const [size, viewport] of [
    ["desktop", { width: 1280, height: 860 }],
    ["phone", { width: 390, height: 844 }],
  ] as const) {
    test(`pictures, ${scheme}, ${size}`, async ({ browser }) => {
      const server = await new FakeServer().start();
      manage(server);
      const page = await browser.newPage({ colorScheme: scheme, viewport, deviceScaleFactor: 1 });
      const shot = (name: string) => page.screenshot({ path: `../../../target/page/${name}-${scheme}-${size}.png` });
      await page.goto(server.url);
      await page.getByLabel("Message", { exact: true }).waitFor();
      await shot("empty");
      server.on("POST /v1/chat/completions", answering([{ reasoning_content: "They ask about budgets." }, ...words(ANSWER)]));
      const box = page.getByLabel("Message", { exact: true });
      for (const text of ["What does a budget of 3 GiB do to a model of 4 GiB?", "And twice that?"]) {
        await box.fill(text);
        await page.getByRole("button", { name: "Send" }).click();
        await page.getByText("tokens/s ·").last().waitFor();
        if (text.startsWith("And")) server.on("POST /v1/chat/completions", answering(words("It fits.")));
      }
      await page.getByText("tokens/s ·").nth(1).waitFor();
      await page.waitForTimeout(200);
      await shot("chat");
      await page.getByRole("button", { name: "Settings" }).click();
      await shot("settings");
      await page.keyboard.press("Escape");
      if (size === "phone") {
        await page.getByRole("button", { name: "Conversations" }).click();
        await shot("drawer");
        await page.keyboard.press("Escape");
      }
      await page.getByRole("link", { name: "Models" }).click();
      await page.getByLabel("Download a model").fill("smollm2");
      await page.keyboard.press("Enter");
      await page.waitForTimeout(1000);
      await shot("models");
      await page.getByRole("link", { name: "Memory" }).click();
      await page.getByRole("heading", { name: "Now" }).waitFor();
      await shot("memory");
      await page.getByRole("slider").focus();
      await page.keyboard.press("PageDown");
      await page.keyboard.press("PageDown");
      await page.getByRole("heading", { name: /^With/ }).waitFor();
      await page.getByText("As a table").click();
      await page.screenshot({ path: `../../../target/page/memory-plan-${scheme}-${size}.png`, fullPage: true });
      await page.close();
      server.stop();
    });
  }
}
