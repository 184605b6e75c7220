// A browser at the page. Chromium is the system's, or the one that METALLIC_CHROMIUM names.
import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "tests",
  outputDir: "../../../target/page/failures",
  reporter: "list",
  // One at a time: machines that check have few cores.
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  use: {
    browserName: "chromium",
    launchOptions: {
      executablePath: process.env.METALLIC_CHROMIUM ?? "/usr/bin/chromium",
      args: ["--host-resolver-rules=MAP metallic.test 127.0.0.1", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])],
    },
    viewport: { width: 1280, height: 800 },
  },
});
